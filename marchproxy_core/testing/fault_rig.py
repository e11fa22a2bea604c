"""A tier that fails on command, at every stage at which a tier can fail.

It takes real resources while it attaches, one a step, and always gives all of them back, so that what
is left after a failure was leaked by whoever drove it. Release it at the end: it may still block a thread.
"""

from __future__ import annotations

import enum
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs
import trio

from marchproxy_core.errors import TierUnavailable
from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import (
    AttachContext,
    ProbeReport,
    Requirement,
    Runner,
    ServiceTable,
    TierStats,
    Verdict,
)
from marchproxy_core.testing.fake_tier import FakeAttachment, FakeTier

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.services import Service
    from marchproxy_core.table import Table

_LONGEST_BLOCK_S = 60.0


class Stage(enum.StrEnum):
    """Where a tier can fail."""

    PROBE = "probe"
    CLASSIFY = "classify"
    ATTACH = "attach"
    """While attaching, before the step that the fault names."""
    STARTING = "starting"
    """In the runner, before ``started()``."""
    RUNNING = "running"
    STATS = "stats"
    DETACH = "detach"


class How(enum.StrEnum):
    """In which way it fails."""

    RAISE = "raise"
    HANG = "hang"
    """Sleep for ever; probe, classify and stats block the thread they are called in; detach until healed."""
    LOOP = "loop"
    """Occupy the trio thread with Python code that never awaits."""
    BLOCK = "block"
    """Occupy the trio thread with a call that waits for a lock."""
    RETURN = "return"
    """End the runner as if its work were done."""
    UNAVAILABLE = "unavailable"
    """Attach raises :class:`TierUnavailable`."""
    UNKNOWN = "unknown"
    """The probe cannot tell."""
    GARBAGE = "garbage"
    """The hook returns something of another type."""


class FaultyError(Exception):
    """What the rig raises."""


@attrs.frozen
class Fault:
    """One way to fail; ``step`` counts from 1 and matters for ATTACH only."""

    stage: Stage
    how: How
    step: int = 1


STEPS = ("socket", "directory", "process", "task")
"""What attaching takes, in this order."""


@attrs.define(eq=False, kw_only=True, slots=False)
class FaultyTier(FakeTier):
    """A fake tier with a fault; :meth:`fail` and :meth:`heal` change it at any time, from the trio thread."""

    name: str = "faulty"
    fault: Fault | None = None
    steps: tuple[str, ...] = STEPS
    """What attaching takes; leave out ``process`` where a mock clock runs."""
    directory: Path | None = None
    """Where its temporary directory goes; the system's default when None."""
    met: list[Fault] = attrs.field(factory=list, init=False)
    """The faults that came to pass, in order."""
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _released: threading.Event = attrs.field(factory=threading.Event, init=False)

    def fail(self, stage: Stage, how: How, step: int = 1) -> None:
        """Fail from now on; a runner that runs already meets a fault of RUNNING at once."""
        self.fault = Fault(stage, how, step)
        self._released.clear()
        self._wake()

    def heal(self) -> None:
        """Work from now on, and let go of every blocked thread."""
        self.fault = None
        self.release()
        self._wake()

    def release(self) -> None:
        """Let go of every blocked thread, the trio thread too; may be called from any thread."""
        self._released.set()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    @hookimpl
    def probe(self, host: HostFacts, settings: Settings) -> ProbeReport:
        """Answer, or fail."""
        del host, settings
        self.probes += 1
        how = self._meet(Stage.PROBE)
        self._fail_plainly(how)
        if how is How.GARBAGE:
            return cast("ProbeReport", "garbage")
        if how is How.UNKNOWN:
            unknown = Requirement(need="an answer", have="none", fix="ask again", met=None)
            return attrs.evolve(self.report(), requirements=(*self.requirements, unknown))
        return self.report()

    @hookimpl
    def classify(self, service: Service, report: ProbeReport) -> Verdict:
        """Answer, or fail."""
        how = self._meet(Stage.CLASSIFY)
        self._fail_plainly(how)
        return cast("Verdict", "garbage") if how is How.GARBAGE else super().classify(service, report)

    @hookimpl
    def attach(self, context: AttachContext) -> AbstractAsyncContextManager[FakeAttachment]:
        """Take the resources step by step, and fail where told."""
        return self._attached_with_steps(context)

    @asynccontextmanager
    async def _attached_with_steps(self, context: AttachContext) -> AsyncIterator[FakeAttachment]:
        async with AsyncExitStack() as stack:
            attachment = await stack.enter_async_context(self._attached(context))
            for number, step in enumerate(self.steps, start=1):
                await self._fail_in_task(self._meet(Stage.ATTACH, number))
                await _TAKE[step](stack, self.directory)
            try:
                yield attachment
            finally:
                await self._fail_in_detach(self._meet(Stage.DETACH))

    @hookimpl
    def forward(self, attachment: FakeAttachment, services: Table[ServiceTable]) -> Runner:
        """Relay until the fault comes."""
        inner = super().forward(attachment, services)

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(inner)
                starting = self._meet(Stage.STARTING)
                await self._fail_in_task(starting)
                if starting is How.RETURN:
                    nursery.cancel_scope.cancel()
                    return
                task_status.started()
                await self._fail_in_task(await self._until_fault())
                nursery.cancel_scope.cancel()

        return run

    async def _until_fault(self) -> How:
        while (how := self._meet(Stage.RUNNING)) is None:
            await self._changed.wait()
        return how

    @hookimpl
    def stats(self, attachment: FakeAttachment) -> TierStats:
        """Answer, or fail."""
        how = self._meet(Stage.STATS)
        self._fail_plainly(how)
        return cast("TierStats", "garbage") if how is How.GARBAGE else super().stats(attachment)

    def _meet(self, stage: Stage, step: int = 1) -> How | None:
        fault = self.fault
        if fault is None or (fault.stage, fault.step) != (stage, step):
            return None
        self.met.append(fault)
        return fault.how

    def _fail_plainly(self, how: How | None) -> None:
        if how is How.RAISE:
            raise FaultyError("on command")
        if how in (How.HANG, How.BLOCK, How.LOOP):
            self._occupy(how)

    async def _fail_in_task(self, how: How | None) -> None:
        if how is How.HANG:
            await trio.sleep_forever()
        if how is How.UNAVAILABLE:
            raise TierUnavailable("a working tier", "one that fails on command", "heal it")
        self._fail_plainly(how)

    async def _fail_in_detach(self, how: How | None) -> None:
        if how is not How.HANG:
            await self._fail_in_task(how)
        # Detaching mostly happens under cancellation: only a shield makes it really hang.
        with trio.CancelScope(shield=True):
            while how is How.HANG and self.fault is not None:
                await self._changed.wait()

    def _occupy(self, how: How) -> None:
        if how is How.LOOP:
            while not self._released.is_set():
                pass
        else:
            self._released.wait(_LONGEST_BLOCK_S)


async def _take_socket(stack: AsyncExitStack, directory: Path | None) -> None:
    del directory
    sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    sock.setblocking(False)
    await trio.lowlevel.checkpoint()


async def _take_directory(stack: AsyncExitStack, directory: Path | None) -> None:
    stack.enter_context(tempfile.TemporaryDirectory(prefix="faulty-tier-", dir=directory))
    await trio.lowlevel.checkpoint()


async def _take_process(stack: AsyncExitStack, directory: Path | None) -> None:
    del directory
    process = await trio.lowlevel.open_process(["sleep", "1000"])

    async def end() -> None:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()

    stack.push_async_callback(end)


async def _take_task(stack: AsyncExitStack, directory: Path | None) -> None:
    del directory
    nursery = await stack.enter_async_context(trio.open_nursery())
    stack.callback(nursery.cancel_scope.cancel)
    nursery.start_soon(trio.sleep_forever)


_TAKE: dict[str, Callable[[AsyncExitStack, Path | None], Awaitable[None]]] = {
    "socket": _take_socket,
    "directory": _take_directory,
    "process": _take_process,
    "task": _take_task,
}
