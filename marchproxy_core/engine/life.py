"""The life of one tier: attach, forward, take its pulse, and say at once when it fails.

A :class:`TierLife` runs one attachment from beginning to end; how often, and what becomes of the services, is
the supervisor's and the engine's business. The tier is reported down *before* its clean-up begins, which may
take seconds: the services must not wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import final

import attrs
import trio

from marchproxy_core.engine.calling import call_hook
from marchproxy_core.errors import TierFault, TierUnavailable
from marchproxy_core.model import AttachContext, Attachment, ServiceTable, TierStats
from marchproxy_core.plugins import Tiers
from marchproxy_core.table import Table

ATTACH_DEADLINE_S = 10.0
FORWARD_DEADLINE_S = 10.0
PULSE_INTERVAL_S = 1.0
PULSE_DEADLINE_S = 5.0
"""Counters of programs in the kernel are behind its lock of all links (rtnl), which others hold for seconds where many
namespaces come and go; a tier that forwards is not to be taken for hung by that."""
LOOK_DEADLINE_S = 2.0
"""For somebody who waits for the counters and can do with older ones."""


ReadStats = Callable[[Tiers, str, Attachment], Awaitable[TierStats]]


async def read_stats_in_thread(tiers: Tiers, tier: str, attachment: Attachment) -> TierStats:
    """Call ``stats`` where it may block; cancelling abandons the thread, which is safe since stats only reads."""
    return await call_hook(tier, tiers.stats, tier, attachment)


@final
@attrs.define(eq=False, kw_only=True)
class TierLife:
    """One attachment of one tier, from ``attach`` to the end of its clean-up."""

    tier: str
    tiers: Tiers
    services: Table[ServiceTable]
    on_up: Callable[[], None]
    on_down: Callable[[TierFault], None]
    """Called once at most, and only when the tier failed by itself."""
    read_stats: ReadStats = read_stats_in_thread
    attachment: Attachment | None = None
    last_stats: TierStats = attrs.field(factory=TierStats)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _fault: TierFault | None = None
    _stage: str = "attach"

    def fail(self, fault: TierFault) -> None:
        """Report the tier down and end its life; the first fault counts."""
        if self._fault is None:
            self._fault = fault
            self.on_down(fault)
            self._scope.cancel()

    async def run(self, context: AttachContext) -> TierFault:
        """Attach and forward until the tier fails or the caller cancels.

        Returns:
            The fault that ended it; :class:`TierUnavailable` becomes one of the stage ``unavailable``.
        """
        try:
            with self._scope:
                await self._attached(context)
        except TierFault as fault:
            self.fail(fault)
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - a tier may raise anything; groups too
            _raise_unless_fault(error)
            self.fail(_as_fault(self.tier, self._stage, error))
        if self._fault is None:  # the scope's own deadline ran out
            self.fail(
                TierFault(
                    self.tier, self._stage, "hung: its deadline passed", "restart the daemon, or update it"
                )
            )
        assert self._fault is not None
        return self._fault

    async def _attached(self, context: AttachContext) -> None:
        # The deadline is the scope's, moved from stage to stage: a fail_after around __aenter__ alone would end
        # inside a nursery that the tier's context manager may have opened.
        self._scope.deadline = trio.current_time() + ATTACH_DEADLINE_S
        async with self.tiers.attach(self.tier, context) as attachment:
            if not isinstance(attachment, Attachment):
                raise TierFault(self.tier, "attach", f"yielded {type(attachment).__name__}, want Attachment")
            self.attachment = attachment
            self._stage = "forward"
            self._scope.deadline = trio.current_time() + FORWARD_DEADLINE_S
            try:
                await self._running(attachment)
            finally:
                await self._count_once_more()

    async def _running(self, attachment: Attachment) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._forward, attachment)
            self._stage = "running"
            self._scope.deadline = float("inf")
            self.on_up()
            try:
                await self._take_pulse()
            except TierFault as fault:
                self.fail(fault)

    async def _count_once_more(self) -> None:
        """Have what came since the last pulse, unless it is the counters that failed."""
        if self._fault is None or self._fault.stage != "stats":
            with trio.CancelScope(shield=True), suppress(TierFault):
                await self.refresh()

    async def _forward(self, attachment: Attachment, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            runner = self.tiers.forward(self.tier, attachment, self.services)
            await runner(task_status=task_status)
        except trio.Cancelled:
            raise
        except BaseException as error:
            _raise_unless_fault(error)
            fault = _as_fault(self.tier, self._stage, error)
            self.fail(fault)
            raise fault from error
        self.fail(TierFault(self.tier, self._stage, "its runner returned; it is to run until cancelled"))

    async def refresh(self, deadline_s: float = LOOK_DEADLINE_S) -> None:
        """Take a fresh snapshot of the counters.

        Raises:
            TierFault: ``stats`` raised or did not answer in time.
        """
        if self.attachment is None:
            return
        with trio.move_on_after(deadline_s):
            self.last_stats = await self.read_stats(self.tiers, self.tier, self.attachment)
            return
        raise TierFault(self.tier, "stats", f"hung: no answer within {deadline_s:g} s")

    async def _take_pulse(self) -> None:
        while True:
            await trio.sleep(PULSE_INTERVAL_S)
            await self.refresh(PULSE_DEADLINE_S)


def _raise_unless_fault(error: BaseException) -> None:
    """Let Ctrl-C and cancellation pass, also when a nursery has wrapped them."""
    if isinstance(error, BaseExceptionGroup):
        if error.subgroup((KeyboardInterrupt, GeneratorExit)) or error.split(trio.Cancelled)[1] is None:
            raise error
    elif isinstance(error, (KeyboardInterrupt, GeneratorExit)):
        raise error


def _as_fault(tier: str, stage: str, error: BaseException) -> TierFault:
    found = _first(error, (TierFault, TierUnavailable))
    if isinstance(found, TierFault):
        return found
    if isinstance(found, TierUnavailable):
        return TierFault(tier, "unavailable", f"need {found.need}, have {found.have}", found.fix)
    cause = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return TierFault(tier, stage, f"{type(cause).__name__}: {' '.join(str(cause).split())}")


def _first(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := _first(inner, kinds))), None)
    return error if isinstance(error, kinds) else None
