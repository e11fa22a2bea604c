"""All workers of one tier: kept alive, told of every change of the table, replaced when they die, hang or retire.

The listening sockets are the core's, so clients wait in their queues while a worker is being replaced. A worker
that dies takes its own connections along and nobody else's.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, final

import attrs
import structlog
import trio

from marchproxy_core.errors import TierFault
from marchproxy_core.model import BackendObservation, TierStats
from marchproxy_core.questions import Purged, Recalled
from marchproxy_core.services import Endpoint
from marchproxy_core.table import Table
from marchproxy_core.workers.asking import Questions
from marchproxy_core.workers.cells import CellBook
from marchproxy_core.workers.counting import beat, clear, forget_active, service_stats
from marchproxy_core.workers.ledger import Ledger
from marchproxy_core.workers.messages import Retire
from marchproxy_core.workers.process import Order, WorkerProcess, started_process
from marchproxy_core.workers.watching import watch_hearts, watch_memory

if TYPE_CHECKING:
    from marchproxy_core.model import AttachContext, ServiceTable
    from marchproxy_core.questions import Purge, Recall
    from marchproxy_core.workers.channel import Report

log = structlog.get_logger()

READY_DEADLINE_S = 8.0
_GENERATIONS = 4
"""How many of one worker there may be at a time: one that serves, and those that retire."""
_MOST_FAILURES = 5
_GOOD_LIFE_S = 10.0


@final
@attrs.define(eq=False, kw_only=True)
class Life:
    """One worker process, from its start until it is gone."""

    worker: WorkerProcess
    spent: trio.Event = attrs.field(factory=trio.Event)
    """Set when another is to take its place: it is dead, or has asked for it."""
    died: bool = False
    up_to_date: trio.Event = attrs.field(factory=trio.Event)
    """Set once it does its first work."""
    began_s: float = attrs.field(factory=trio.current_time)


@final
class WorkerPool:
    """The workers of one tier; made by :func:`open_worker_pool`."""

    def __init__(
        self,
        *,
        tier: str,
        entry: str,
        context: AttachContext,
        memory: int,
        ledger: Ledger,
        nursery: trio.Nursery,
    ) -> None:
        """Use :func:`open_worker_pool`."""
        self.tier = tier
        self.count = worker_count(context)
        self._entry = entry
        self._context = context
        self._nursery = nursery
        self._memory = memory
        self._ledger = ledger
        self._regions = list(range(1, len(self._ledger.regions)))
        self._region_given_back = trio.Event()
        self._book = CellBook()
        self._lives: list[Life] = []
        self._questions = Questions()
        self._orders: Table[Order | None] = Table(None)

    async def run(
        self, services: Table[ServiceTable], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have the workers do what the table says, until cancelled; ``started()`` once all do its first value."""
        version = 0
        async for table in services.changes():
            version += 1
            self._book.assign((one.service for one in table.assignments.values()), version)
            self._orders.publish(Order(version=version, table=table, cells=dict(self._book.given)))
            if version == 1:
                for life in tuple(self._lives):
                    await life.up_to_date.wait()
                task_status.started()

    def stats(self) -> TierStats:
        """Return the counters of every service; may be called from any thread, and does not block."""
        return TierStats(
            services={name: service_stats(self._ledger, cells) for name, cells in [*self._book.given.items()]}
        )

    async def recall(self, question: Recall) -> Recalled:
        """Ask all workers, those that retire too, what became of a request."""
        answers = await self._questions.ask(self._living(), question)
        found = next((answer for answer in answers.given if isinstance(answer, dict)), None)
        return Recalled(found=found, silent=answers.silent)

    async def purge(self, question: Purge) -> Purged:
        """Have all workers, those that retire too, forget responses."""
        answers = await self._questions.ask(self._living(), question)
        counts = [answer for answer in answers.given if type(answer) is int and answer > 0]
        return Purged(forgotten=sum(counts), silent=answers.silent)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers, by index; those that retire come last."""
        lives = sorted(self._lives, key=lambda life: (life.spent.is_set(), life.worker.index))
        return tuple(life.worker.pid for life in lives)

    async def start(self) -> None:
        """Start every worker and whoever watches them; returns when all are ready."""
        async with trio.open_nursery() as starting:
            for index in range(self.count):
                starting.start_soon(self._nursery.start, self._keep, index)
        self._nursery.start_soon(watch_hearts, self._ledger, self._living)
        if self._context.settings.max_memory_mb is not None:
            self._nursery.start_soon(watch_memory, self._ledger, self._context.settings.max_memory_mb << 20)

    def _living(self) -> list[WorkerProcess]:
        return [life.worker for life in self._lives]

    async def _keep(self, index: int, *, task_status: trio.TaskStatus[None]) -> None:
        """Have one worker of this index at all times."""
        life = await self._start_life(index)
        task_status.started()
        failures = 0
        while True:
            await life.spent.wait()
            old = life
            lived_s = trio.current_time() - old.began_s
            failures = failures + 1 if old.died and lived_s < _GOOD_LIFE_S else 0
            life, failures = await self._succeed(index, failures)
            log.info("worker.replaced", worker=index, pid=life.worker.pid, was=old.worker.pid)
            if not old.died:
                await life.up_to_date.wait()
                self._nursery.start_soon(self._retire, old)

    async def _succeed(self, index: int, failures: int) -> tuple[Life, int]:
        while True:
            if failures >= _MOST_FAILURES:
                raise TierFault(
                    self.tier,
                    "running",
                    f"worker {index} died {failures} times in a row",
                    "see its last words in the log",
                )
            while not self._regions:  # the one that asked for a successor serves until an older one has ended
                await self._region_given_back.wait()
            # At once after the first death: clients are waiting.
            await trio.sleep(0.0 if failures <= 1 else 0.25 * 2.0**failures)
            try:
                return await self._start_life(index), failures
            except TierFault as fault:
                failures += 1
                log.warning("worker.start_failed", worker=index, error=fault.what, failures=failures)

    async def _start_life(self, index: int) -> Life:
        started: list[Life] = []
        try:
            with trio.move_on_after(READY_DEADLINE_S):
                started.append(await self._nursery.start(self._live, index))
        except WorkerStillborn as error:
            raise TierFault(
                self.tier,
                "attach",
                f"worker {index} {error} before it was ready",
                "see its last words above in the log",
            ) from None
        if not started:
            raise TierFault(
                self.tier, "attach", f"worker {index} was not ready within {READY_DEADLINE_S:g} s"
            )
        return started[0]

    async def _live(self, index: int, *, task_status: trio.TaskStatus[Life]) -> None:
        affinity = self._context.settings.proxy_cpu_affinity
        region = self._regions.pop(0)
        try:
            async with started_process(
                tier=self.tier,
                entry=self._entry,
                index=index,
                region=region,
                ledger=self._memory,
                cpus=affinity[index % len(affinity) :][:1] if affinity else self._context.host.cpus,
                beat=lambda: beat(self._ledger, region),
            ) as worker:
                await self._converse(Life(worker=worker), task_status)
        finally:
            forget_active(self._ledger, region, self._book.given.values())
            self._regions.append(region)
            self._region_given_back.set()
            self._region_given_back = trio.Event()

    async def _converse(self, life: Life, task_status: trio.TaskStatus[Life]) -> None:
        worker = life.worker
        ready = False
        try:
            async with trio.open_nursery() as nursery:

                def hear(report: Report) -> None:
                    nonlocal ready
                    if "ready" in report and not ready:
                        ready = True
                        self._lives.append(life)
                        nursery.start_soon(self._feed, life)
                        task_status.started(life)
                    self._hear(life, report)

                await worker.listen(hear)
                nursery.cancel_scope.cancel()
            with trio.move_on_after(1.0):
                await worker.process.wait()
            if not ready:
                raise WorkerStillborn(_ending(worker.process.returncode))
            if not life.spent.is_set():
                log.error(
                    "worker.died", worker=worker.index, pid=worker.pid, how=_ending(worker.process.returncode)
                )
                life.died = True
        finally:
            if ready:
                self._lives.remove(life)
            self._questions.gone(worker)
            life.up_to_date.set()
            life.spent.set()

    def _hear(self, life: Life, report: Report) -> None:
        match report:
            case {"applied": int(version)}:
                life.worker.applied = version
                life.up_to_date.set()
                oldest = min(one.worker.applied for one in self._lives)
                self._book.reclaim(oldest, partial(clear, self._ledger))
            case {"ticket": int(ticket), "answer": answer}:
                self._questions.hear(life.worker, ticket, answer)
            case {"successor": True}:
                life.spent.set()
            case {"service": str(service), "backend": str(backend), "error": str(error)}:
                try:
                    endpoint = Endpoint.parse(backend)
                except ValueError:
                    return
                self._context.observe(
                    BackendObservation(service=service, backend=endpoint, ok=not error, error=error)
                )
            case _:
                return

    async def _feed(self, life: Life) -> None:
        async for order in self._orders.changes():
            if order is None:
                continue
            try:
                if life.spent.is_set():  # what it still has is to end, nothing new is to come
                    await life.worker.flush(order.table)
                else:
                    await life.worker.order(order, self.count)
            except OSError:
                return  # dead: whoever hears its reports finds out

    async def _retire(self, life: Life) -> None:
        try:
            await life.worker.send(Retire())
        except OSError:
            return


class WorkerStillborn(Exception):
    """A worker ended before it was ready; the message says how."""


def _ending(status: int | None) -> str:
    if status is None:
        return "closed its channel"
    return f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"


@asynccontextmanager
async def open_worker_pool(*, tier: str, entry: str, context: AttachContext) -> AsyncIterator[WorkerPool]:
    """Start the workers of a tier; at the end of the block all of them are gone.

    Args:
        tier: The tier's name.
        entry: The workers' main function, ``package.module:function``, called in each process with its
            :class:`~marchproxy_core.workers.child.Worker`.
        context: What ``attach`` was given.

    Raises:
        TierFault: A worker did not start, or later died again and again.
    """
    memory = Ledger.create(_GENERATIONS * worker_count(context))
    ledger = Ledger(memory)
    try:
        async with trio.open_nursery() as nursery:
            pool = WorkerPool(
                tier=tier, entry=entry, context=context, memory=memory, ledger=ledger, nursery=nursery
            )
            await pool.start()
            yield pool
            nursery.cancel_scope.cancel()
    finally:
        ledger.close()
        os.close(memory)


def worker_count(context: AttachContext) -> int:
    """Return how many workers a tier has: ``WORKER_THREADS``, or one a usable CPU."""
    return context.settings.worker_threads or len(context.host.cpus)
