"""The supervisors of all tiers that are needed: what is said to all of them at once, and what they count together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import final

import attrs
import structlog
import trio

from marchproxy_core.engine.supervisor import Supervisor
from marchproxy_core.metrics import CounterHistory
from marchproxy_core.model import AttachContext, Attachment, ServiceTable, TierStats

log = structlog.get_logger()

_TAKE_DEADLINE_S = 10.0
"""What tiers have to do what a table says, programs on their interfaces included; they go on afterwards."""


@final
@attrs.define(eq=False)
class Crew:
    """One supervisor for each tier, by its name."""

    _members: dict[str, Supervisor] = attrs.field(factory=dict)
    _history: CounterHistory = attrs.field(factory=CounterHistory)

    def __contains__(self, tier: str) -> bool:
        return tier in self._members

    def __iter__(self) -> Iterator[Supervisor]:
        return iter(tuple(self._members.values()))

    def __getitem__(self, tier: str) -> Supervisor:
        return self._members[tier]

    def add(self, supervisor: Supervisor) -> None:
        """Take one in; whoever adds it runs it."""
        self._members[supervisor.tier] = supervisor

    def stop_all_but(self, tiers: Iterable[str]) -> None:
        """End and forget those that nobody needs any more."""
        for tier in self._members.keys() - set(tiers):
            self._members.pop(tier).stop()

    def down(self, tier: str) -> str:
        """Return why a tier may not be chosen now; empty when it may, or is not known."""
        return self._members[tier].down if tier in self._members else ""

    def follow(self, context: AttachContext) -> None:
        """Have what is attached from now on be given this context."""
        for supervisor in self._members.values():
            supervisor.context = context

    def publish(self, tables: Mapping[str, ServiceTable]) -> None:
        """Give each tier its table; one that is to go on without the daemon keeps the one it has."""
        for tier, supervisor in self._members.items():
            if not supervisor.goes_on_alone:
                supervisor.services.publish(tables.get(tier, ServiceTable()))

    def lose_interface(self, name: str) -> None:
        """Give up the tiers that stand on that interface."""
        for supervisor in self._members.values():
            supervisor.lose_interface(name)

    async def settled(self) -> None:
        """Wait until each tier's first try came to an end, good or bad."""
        for supervisor in self:
            await supervisor.settled()

    async def caught_up(self) -> None:
        """Wait until the tiers that are up do what their tables say; after 10 s say which of them are late."""
        late = {supervisor.tier for supervisor in self if not supervisor.down}

        async def wait_for(tier: str) -> None:
            await self._members[tier].caught_up()
            late.discard(tier)

        with trio.move_on_after(_TAKE_DEADLINE_S):
            async with trio.open_nursery() as nursery:
                for tier in tuple(late):
                    nursery.start_soon(wait_for, tier)
        for tier in sorted(late):
            log.warning("tier.delayed", tier=tier, waited_s=_TAKE_DEADLINE_S)

    def detached(self, tier: str, last_stats: TierStats) -> None:
        """Keep what an attachment counted that has ended."""
        self._history.fold(tier, last_stats)

    def stats(self, services: Iterable[str]) -> dict[str, TierStats]:
        """Return the counters by tier, over all attachments, as of the last pulse or :meth:`refresh_stats`.

        Args:
            services: The names of those that there are; what was counted of others is forgotten.
        """
        self._history.keep(set(services))
        return self._history.total({tier: one.stats() for tier, one in self._members.items() if one.life})

    async def refresh_stats(self) -> None:
        """Read every tier's counters anew; all at once, since one that hangs keeps its old ones only after 2 s."""
        async with trio.open_nursery() as nursery:
            for supervisor in self:
                nursery.start_soon(supervisor.refresh)

    def attachments(self) -> list[Attachment]:
        """Return what is attached now."""
        lives = [supervisor.life for supervisor in self]
        return [life.attachment for life in lives if life is not None and life.attachment is not None]

    def going_on_alone(self) -> set[str]:
        """Return the tiers that go on when the daemon ends."""
        return {tier for tier, one in self._members.items() if one.goes_on_alone}
