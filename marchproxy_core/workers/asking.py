"""Questions to the workers of a pool: all are asked at once, and have a second to answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, final

import attrs
import trio

from marchproxy_core.workers.messages import Ask
from marchproxy_core.workers.process import WorkerProcess

if TYPE_CHECKING:
    from marchproxy_core.questions import Question

ANSWER_DEADLINE_S = 1.0


@attrs.frozen(kw_only=True)
class Answers:
    """What came back."""

    given: tuple[object, ...]
    """JSON values, one for each worker that answered; not to be trusted more than a worker is."""
    silent: int
    """How many workers live and did not answer in time."""


@attrs.define(eq=False)
class _Open:
    waiting: set[WorkerProcess]
    answers: list[object] = attrs.field(factory=list)
    done: trio.Event = attrs.field(factory=trio.Event)

    def leave(self, worker: WorkerProcess) -> bool:
        """Wait for a worker no more; false when nobody waited for it."""
        if worker not in self.waiting:
            return False
        self.waiting.discard(worker)
        if not self.waiting:
            self.done.set()
        return True


@final
class Questions:
    """Those that are open."""

    def __init__(self) -> None:
        """Have asked nothing."""
        self._tickets = itertools.count(1)
        self._open: dict[int, _Open] = {}

    async def ask(self, workers: Iterable[WorkerProcess], question: Question) -> Answers:
        """Ask these workers, and return what they have answered when all have, or when their time is up."""
        ticket, asked = next(self._tickets), _Open(set(workers))
        self._open[ticket] = asked
        try:
            with trio.move_on_after(ANSWER_DEADLINE_S):
                async with trio.open_nursery() as nursery:
                    for worker in tuple(asked.waiting):
                        nursery.start_soon(_send, worker, Ask(ticket=ticket, question=question), asked)
                    if asked.waiting:
                        await asked.done.wait()
        finally:
            del self._open[ticket]
        return Answers(given=tuple(asked.answers), silent=len(asked.waiting))

    def hear(self, worker: WorkerProcess, ticket: int, answer: object) -> None:
        """Take a worker's answer; one that comes late, twice or unasked counts for nothing."""
        asked = self._open.get(ticket)
        if asked is not None and asked.leave(worker):
            asked.answers.append(answer)

    def gone(self, worker: WorkerProcess) -> None:
        """Wait no more for a worker that is dead: what it knew is gone with it."""
        for asked in self._open.values():
            asked.leave(worker)


async def _send(worker: WorkerProcess, message: Ask, asked: _Open) -> None:
    try:
        await worker.send(message)
    except (OSError, trio.ClosedResourceError):
        asked.leave(worker)
