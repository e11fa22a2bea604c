"""Sums of counters that outlive an attachment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest
from operator import add
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from marchproxy_core.model import ServiceStats, TierStats

if TYPE_CHECKING:
    from collections.abc import Collection

_NUMBERS: Final = (
    *("connections_opened", "bytes_in", "bytes_out", "packets_in", "packets_out"),
    *("duration_sum_s", "retries", "reused"),
)
_BY_NAME: Final = ("drops", "answers", "cache")
_WHOLE = ""
"""In place of a service's name: what a tier saw as a whole. No service is called so."""


@final
class CounterHistory:
    """Counters of a tier over all of its attachments: they start at 0 each time, and their sum never falls.

    Pure, for one thread. Feed every snapshot to :meth:`total`, and :meth:`fold` at each detach.
    """

    def __init__(self) -> None:
        self._past: dict[tuple[str, str], ServiceStats] = {}
        self._last: dict[tuple[str, str], ServiceStats] = {}

    def fold(self, tier: str, last_stats: TierStats | None = None) -> None:
        """Close an attachment of the tier: what it counted is past, its next one starts at 0.

        Args:
            tier: The tier that was detached.
            last_stats: Its last snapshot. None, or one older than :meth:`total` saw, loses nothing seen.
        """
        final_stats = _parts(last_stats) if last_stats else {}
        for key in [key for key in self._last if key[0] == tier]:
            seen = self._last.pop(key)
            final_stats[key[1]] = _combined(max, seen, final_stats.get(key[1], ServiceStats()))
        for service, stats in final_stats.items():
            self._add_to_past((tier, service), stats)

    def total(self, current: Mapping[str, TierStats]) -> dict[str, TierStats]:
        """Return the sums, given a fresh snapshot of each attached tier.

        A service that is gone from a snapshot keeps its sum, with nothing active. One that counts from 0
        again within an attachment (it went away by reload and came back) goes on where it was.
        """
        for tier, stats in current.items():
            for service, now in _parts(stats).items():
                self._see((tier, service), now)
        result: dict[str, dict[str, ServiceStats]] = {tier: {} for tier in current}
        for key in self._past | self._last:
            past, seen = self._past.get(key, ServiceStats()), self._last.get(key, ServiceStats())
            live = current.get(key[0], TierStats()).services.get(key[1], ServiceStats())
            result.setdefault(key[0], {})[key[1]] = attrs.evolve(
                _combined(add, past, seen),
                connections_active=live.connections_active,
                backend_active=live.backend_active,
                websockets_active=live.websockets_active,
            )
        return {
            tier: TierStats(packets_seen=parts.pop(_WHOLE, ServiceStats()).drops, services=parts)
            for tier, parts in result.items()
        }

    def keep(self, services: Collection[str]) -> None:
        """Forget the services that the configuration no longer has."""
        for sums in (self._past, self._last):
            for key in [key for key in sums if key[1] != _WHOLE and key[1] not in services]:
                del sums[key]

    def _see(self, key: tuple[str, str], now: ServiceStats) -> None:
        seen = self._last.get(key, ServiceStats())
        if _fell(seen, now):
            self._add_to_past(key, seen)
        self._last[key] = now

    def _add_to_past(self, key: tuple[str, str], stats: ServiceStats) -> None:
        self._past[key] = _combined(add, self._past.get(key, ServiceStats()), stats)


def _parts(stats: TierStats) -> dict[str, ServiceStats]:
    """Return a tier's counters by service, and those of the whole as if it were one more."""
    whole = {_WHOLE: ServiceStats(drops=stats.packets_seen)} if stats.packets_seen else {}
    return {**stats.services, **whole}


def _combined(how: Callable[[float, float], float], one: ServiceStats, other: ServiceStats) -> ServiceStats:
    """Return all that only grows, each count made of both counts; nothing is active."""
    grown: dict[str, Any] = {name: how(getattr(one, name), getattr(other, name)) for name in _NUMBERS}
    for field in _BY_NAME:
        had, got = getattr(one, field), getattr(other, field)
        grown[field] = {key: how(had.get(key, 0), got.get(key, 0)) for key in {**had, **got}}
    pairs = zip_longest(one.durations, other.durations, fillvalue=0)
    grown["durations"] = tuple(how(had, got) for had, got in pairs)
    return ServiceStats(**grown)


def _fell(seen: ServiceStats, now: ServiceStats) -> bool:
    return (
        any(getattr(seen, name) > getattr(now, name) for name in _NUMBERS)
        or any(
            count > getattr(now, field).get(key, 0)
            for field in _BY_NAME
            for key, count in getattr(seen, field).items()
        )
        or any(had > got for had, got in zip_longest(seen.durations, now.durations, fillvalue=0))
    )
