"""What the admin API and the metrics see of the engine, and the few things they may ask of it.

The engine implements :class:`EngineView`; tests implement it with values of their own. Nothing here has code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from marchproxy_core.backends import HealthBoard
    from marchproxy_core.config import Config
    from marchproxy_core.door import DoorChange, KnownRule
    from marchproxy_core.model import Plan, TierStats
    from marchproxy_core.plugins import PluginRow
    from marchproxy_core.questions import Purge, Purged, Recall, Recalled


@attrs.frozen(kw_only=True)
class ReloadResult:
    """What a reload changed: services by name, settings by variable name."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Settings whose new value is in use now."""
    needs_restart: tuple[str, ...] = ()
    """Settings whose new value takes a restart of the daemon; the old one is still in use."""
    notes: tuple[str, ...] = ()


class EngineView(Protocol):
    """The engine as an operator sees it. Called from the trio thread; nothing here blocks."""

    @property
    def plan(self) -> Plan:
        """Who carries what, now."""
        ...

    @property
    def config(self) -> Config:
        """The configuration in use."""
        ...

    @property
    def plugins(self) -> tuple[PluginRow, ...]:
        """Every installed tier, the broken ones too."""
        ...

    @property
    def board(self) -> HealthBoard:
        """Health of every backend."""
        ...

    @property
    def ready(self) -> bool:
        """Whether every service is carried; false while starting and from the start of a drain on."""
        ...

    @property
    def started_at(self) -> datetime:
        """When the daemon started; aware, UTC."""
        ...

    def stats(self) -> Mapping[str, TierStats]:
        """Counters by tier, summed over all attachments since the daemon started.

        Made with :class:`~marchproxy_core.metrics.CounterHistory`: ``history.total(current snapshots)``.
        """
        ...

    async def refresh(self) -> None:
        """Have :meth:`stats` show the counters as they are now; a tier that does not answer keeps its last ones."""
        ...

    def fallbacks(self) -> Mapping[tuple[str, str, str], int]:
        """How often a service moved, by tier left, tier taken and reason; reasons are a small fixed set."""
        ...

    async def reload(self) -> ReloadResult:
        """Read the configuration again and apply the difference.

        Raises:
            ConfigError: The new configuration has problems; nothing was changed.
            ListenError: A new address could not be opened; nothing was changed.
        """
        ...

    def door(self) -> tuple[KnownRule, ...]:
        """Return the rules at the front door that are in force."""
        ...

    def change_door(self, change: DoorChange) -> None:
        """Add or remove a rule; tiers hear of it before this returns.

        Raises:
            DoorError: It cannot be; nothing was changed.
        """
        ...

    async def recall(self, question: Recall) -> Recalled | None:
        """Ask the tiers what became of a request; None where none that runs remembers any. Takes 2 s at most."""
        ...

    async def purge(self, question: Purge) -> Purged:
        """Have the tiers forget what is cached. Takes 2 s at most."""
        ...

    def drain(self) -> None:
        """Take nothing new, let connections end within ``DRAIN_TIMEOUT``, then exit. Returns at once."""
        ...
