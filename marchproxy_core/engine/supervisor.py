"""Keeping one tier alive: try it, give it up when it fails, try it again after growing pauses.

Decides nothing about services: it tells the engine when the tier is up, down, or
trusted again, and the engine makes a new plan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import final

import attrs
import structlog
import trio

from marchproxy_core.engine.life import ReadStats, TierLife, read_stats_in_thread
from marchproxy_core.engine.pauses import Pauses
from marchproxy_core.engine.watchdog import running_tier
from marchproxy_core.errors import TierFault
from marchproxy_core.model import AttachContext, Outcome, ProbeReport, ServiceTable, TierStats
from marchproxy_core.plugins import Tiers
from marchproxy_core.table import Table

log = structlog.get_logger()


@final
@attrs.define(eq=False, kw_only=True)
class Supervisor:
    """One tier of the running daemon."""

    tier: str
    tiers: Tiers
    context: AttachContext
    probe: Callable[[str], Awaitable[ProbeReport]]
    """Probe again, with a deadline; raises TierFault."""
    changed: Callable[[str], None]
    """Called with a reason from a small fixed set after ``down`` changed: make a new plan now."""
    needed_now: Callable[[str], bool]
    """Whether some service has no other tier, so that probation must not delay this one."""
    detached: Callable[[str, TierStats], None]
    """Called with the last counters of each attachment that ended."""
    read_stats: ReadStats = read_stats_in_thread
    services: Table[ServiceTable] = attrs.field(factory=lambda: Table(ServiceTable()))
    down: str = "is starting"
    """Why the tier may not be chosen now; empty when it may."""
    life: TierLife | None = None
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _pauses: Pauses = attrs.field(factory=Pauses)
    _settled: trio.Event = attrs.field(factory=trio.Event)
    _up: trio.Event = attrs.field(factory=trio.Event)
    _fell: trio.Event = attrs.field(factory=trio.Event)

    async def settled(self) -> None:
        """Wait until the first try came to an end, good or bad."""
        await self._settled.wait()

    async def caught_up(self) -> None:
        """Wait until the tier has done what its newest table says; not for one that is down, or goes down."""
        if self.down:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_down, nursery.cancel_scope)
            await self.services.taken()
            nursery.cancel_scope.cancel()

    async def _end_when_down(self, scope: trio.CancelScope) -> None:
        await self._fell.wait()
        scope.cancel()

    def stats(self) -> TierStats:
        """Counters of the present attachment, at most a second old."""
        return self.life.last_stats if self.life else TierStats()

    async def refresh(self) -> None:
        """Take a fresh snapshot of the counters; a tier that cannot give one is found by its pulse."""
        if self.life:
            with suppress(TierFault):
                await self.life.refresh()

    @property
    def goes_on_alone(self) -> bool:
        """Whether what it has in the kernel stays, now that the daemon ends."""
        attachment = self.life.attachment if self.life else None
        return attachment is not None and attachment.outlives and self.context.stays()

    def lose_interface(self, name: str) -> None:
        """Give the tier up when it stands on that interface."""
        life = self.life
        if life and life.attachment and name in life.attachment.interfaces:
            life.fail(
                TierFault(self.tier, "interface_gone", f"interface {name} is gone", f"bring {name} back")
            )

    def stop(self) -> None:
        """End :meth:`run`: nobody needs the tier any more."""
        self._scope.cancel()

    async def run(self) -> None:
        """Attach, forward and retry until stopped or cancelled."""
        running_tier.set(self.tier)
        with self._scope:
            await self._keep_alive()

    async def _keep_alive(self) -> None:
        while True:
            started_s = trio.current_time()
            await self._one_life()
            pause_s = self._pauses.failed(trio.current_time() - started_s)
            log.info(
                "tier.retry_scheduled", tier=self.tier, retry_in_s=pause_s, failures=self._pauses.failures
            )
            await trio.sleep(pause_s)

    async def _one_life(self) -> None:
        self._up, self._fell = trio.Event(), trio.Event()
        life = TierLife(
            tier=self.tier,
            tiers=self.tiers,
            services=self.services,
            on_up=self._up.set,
            on_down=self._went_down,
            read_stats=self.read_stats,
        )
        try:
            if self._settled.is_set():
                await self._probe_again()
            self.life = life
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._promote)
                await life.run(self.context)
                nursery.cancel_scope.cancel()
        except TierFault as fault:
            self._went_down(fault)
        finally:
            self.life = None
            self.detached(self.tier, life.last_stats)
            self._settled.set()

    async def _probe_again(self) -> None:
        report = await self.probe(self.tier)
        if report.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
            raise TierFault(self.tier, "unavailable", report.reason)

    async def _promote(self) -> None:
        """Once the tier forwards, let it have its services: at once, or after its probation."""
        await self._up.wait()
        log.info("tier.attached", tier=self.tier)
        probation_s = self._pauses.probation_s
        if probation_s and not self.needed_now(self.tier):
            self.down = f"on probation for {probation_s:g} s after {self._pauses.failures} failures"
            self._settled.set()
            await trio.sleep(probation_s)
        self.down = ""
        self._settled.set()
        self.changed("promoted")

    def _went_down(self, fault: TierFault) -> None:
        self.down = str(fault)
        self._fell.set()
        log.warning("tier.demoted", tier=self.tier, stage=fault.stage, reason=fault.what, fix=fault.fix)
        self.changed(fault.stage)
