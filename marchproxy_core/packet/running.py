"""Runs the engine at one hook of the kernel: what all tiers have in common whose programs do the work.

A tier brings a *seat*: how its program gets on an interface, off it, and how it is seen that it is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol, final

import attrs
import structlog
import trio

from marchproxy_core.errors import TierUnavailable
from marchproxy_core.model import Attachment, Runner, ServiceTable, TierStats
from marchproxy_core.packet.arrangement import Fitness, LeftOut
from marchproxy_core.packet.network import NetworkFacts
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.packet.shared import PacketEngine
from marchproxy_core.packet.watching import network_changes

if TYPE_CHECKING:
    from marchproxy_core.packet.arrangement import Arrangement
    from marchproxy_core.table import Table

log = structlog.get_logger()

_SWEEP_S = 1.0


class Seat(Protocol):
    """Where a tier's program sits. All calls block."""

    def judge(self, interfaces: Mapping[int, str]) -> Fitness:
        """Say which of these interfaces, names by index, the program cannot or should not be on."""
        ...

    def stand_on(self, interfaces: Mapping[int, str]) -> None:
        """Have the program on exactly these interfaces, names by index; those it is on already stay untouched."""
        ...

    def check(self) -> None:
        """Raise TierFault when the program is gone from an interface that it should be on."""
        ...


@final
@attrs.define(eq=False, kw_only=True)
class PacketAttachment(Attachment):
    """What a tier that runs the engine in the kernel holds."""

    engine: PacketEngine
    hook: Hook
    seat: Seat
    only: tuple[str, ...] = ()
    """Names of the interfaces that the operator chose; empty: those that the services need."""
    left_out: tuple[LeftOut, ...] = ()
    """What was not taken at the last look, and why."""
    outlives: bool = True
    settle: Callable[[NetworkFacts], object] = lambda network: None
    """Called after each change with the network as it is now; blocks. The change is in effect when it returns."""
    _working: trio.Lock = attrs.field(factory=trio.Lock)

    def stats(self) -> TierStats:
        """Return the counters, if the program still is where it should be; from any thread."""
        self.seat.check()
        control = self.engine.control
        return TierStats(services=control.stats(self.hook), packets_seen=control.packets_seen(self.hook))

    async def take(self, look: Callable[[], Arrangement]) -> None:
        """Have the tables and the interfaces follow a change, as ``look`` finds it."""
        async with self._working:
            arrangement = await trio.to_thread.run_sync(self._take, look)
            left_out = tuple(one for one in arrangement.left_out if one.hook in (None, self.hook))
            for one in left_out:
                if one not in self.left_out:
                    log.info(
                        "service.left_to_lower_tier",
                        tier=self.tier,
                        service=one.service,
                        ip_version=one.version,
                        reason=one.reason,
                    )
            self.left_out = left_out

    def _take(self, look: Callable[[], Arrangement]) -> Arrangement:
        arrangement = look()
        network = self.engine.control.network
        there = {**network.names, **network.down}
        wanted = {
            index: name
            for index, name in there.items()
            if self._is_needed(index, name, arrangement.interfaces(self.hook))
        }
        missing = set(self.only) - set(wanted.values())
        if missing:
            raise TierUnavailable(
                f"the interfaces {', '.join(self.only)}",
                f"no {', no '.join(sorted(missing))}",
                "make them, or change the setting",
            )
        self.seat.stand_on(wanted)
        self.engine.control.has_program(self.hook)
        self.settle(network)
        self.interfaces = frozenset(wanted.values())
        return arrangement

    def _is_needed(self, index: int, name: str, needed: frozenset[int]) -> bool:
        if self.only:
            return name in self.only
        control = self.engine.control
        if index in needed and index in control.network.names:
            return True
        # One that is down stays: XDP's own coming and going takes the links of some NICs down and up. Others stay for
        # flows: of a service that drains or was moved, or an earlier daemon's.
        return name in self.interfaces and (index in control.network.down or control.has_flows())

    def judge(self, interfaces: Mapping[int, str]) -> Fitness:
        """Say where the program cannot be: where the operator, or the seat, does not want it."""
        found = self.seat.judge(interfaces)
        if not self.only:
            return found
        others = {
            index: "not one of the interfaces that the settings name"
            for index, name in interfaces.items()
            if name not in self.only
        }
        return attrs.evolve(found, refused={**found.refused, **others})


def run_hook(attachment: PacketAttachment, services: Table[ServiceTable]) -> Runner:
    """Return what carries the services of the table by this attachment until it is cancelled."""
    control, hook = attachment.engine.control, attachment.hook

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        async with network_changes() as changes, trio.open_nursery() as nursery:
            try:
                nursery.start_soon(_follow_network, attachment, changes)
                nursery.start_soon(_sweep, attachment)
                started = False
                async for table in services.changes():
                    await attachment.take(partial(control.demand, hook, table, attachment.judge))
                    if not started:
                        started = True
                        task_status.started()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(_leave, attachment)

    return run


def _leave(attachment: PacketAttachment) -> None:
    if attachment.engine.stays():
        return
    # The hook leaves the services first: what comes then goes on to the next tier, not into emptied tables.
    attachment.engine.control.demand(attachment.hook, None)
    attachment.seat.stand_on({})


async def _follow_network(attachment: PacketAttachment, changes: trio.MemoryReceiveChannel[None]) -> None:
    async for _ in changes:
        await attachment.take(attachment.engine.control.rearrange)


async def _sweep(attachment: PacketAttachment) -> None:
    while True:
        await trio.sleep(_SWEEP_S)
        await trio.to_thread.run_sync(attachment.engine.control.sweep)
