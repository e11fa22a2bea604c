"""Metrics in Prometheus' format, read from the engine at each scrape; and sums that outlive an attachment.

Owns names and labels of the metrics. Counts nothing itself. Labels are bounded by the configuration:
services, tiers, backends and reasons, never anything that a client sent.
"""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, final

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from marchproxy_core.admin.answers import backend_connections
from marchproxy_core.admin.view import EngineView
from marchproxy_core.model import Health, ServiceStats, TierState, TierStats
from marchproxy_core.services import Protocol
from marchproxy_core.version import version

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

_COUNTERS = ("connections_opened", "bytes_in", "bytes_out", "packets_in", "packets_out")
_REASON = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MAX_REASONS = 64
OTHER = "other"
"""Stands for reasons that are not short names, or one too many."""
_XDP = "xdp"
"""The tier whose sum has a name of its own: dashboards for MarchProxy know it."""
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
            final_stats[key[1]] = _higher(seen, final_stats.get(key[1], ServiceStats()))
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
                _summed(past, seen),
                connections_active=live.connections_active,
                backend_active=live.backend_active,
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
        self._past[key] = _summed(self._past.get(key, ServiceStats()), stats)


def _parts(stats: TierStats) -> dict[str, ServiceStats]:
    """Return a tier's counters by service, and those of the whole as if it were one more."""
    whole = {_WHOLE: ServiceStats(drops=stats.packets_seen)} if stats.packets_seen else {}
    return {**stats.services, **whole}


def _counters(stats: ServiceStats) -> dict[str, int]:
    return {name: getattr(stats, name) for name in _COUNTERS}


def _summed(one: ServiceStats, other: ServiceStats) -> ServiceStats:
    drops = {
        reason: one.drops.get(reason, 0) + other.drops.get(reason, 0)
        for reason in {**one.drops, **other.drops}
    }
    sums = {name: count + getattr(other, name) for name, count in _counters(one).items()}
    return ServiceStats(**sums, drops=drops)


def _higher(one: ServiceStats, other: ServiceStats) -> ServiceStats:
    drops = {
        reason: max(one.drops.get(reason, 0), other.drops.get(reason, 0))
        for reason in {**one.drops, **other.drops}
    }
    highest = {name: max(count, getattr(other, name)) for name, count in _counters(one).items()}
    return ServiceStats(**highest, drops=drops)


def _fell(seen: ServiceStats, now: ServiceStats) -> bool:
    return any(count > getattr(now, name) for name, count in _counters(seen).items()) or any(
        count > now.drops.get(reason, 0) for reason, count in seen.drops.items()
    )


@final
@attrs.frozen(eq=False)
class EngineCollector(Collector):
    """Reads the engine when Prometheus asks."""

    _view: EngineView

    def collect(self) -> Iterator[Metric]:
        """Yield every metric. Called in the trio thread, and does not block."""
        yield _build_info()
        yield _gauge("marchproxy_start_time_seconds", "When the daemon started, in seconds since 1970.").of(
            [((), self._view.started_at.timestamp())]
        )
        yield _gauge(
            "marchproxy_ready", "1 while every service is carried and the daemon is not draining."
        ).of([((), float(self._view.ready))])
        yield from self._tiers()
        yield from self._traffic()
        yield from self._backends()

    def _tiers(self) -> Iterator[Metric]:
        yield _gauge("marchproxy_tier_state", "1 for the state that a tier is in.", "tier", "state").of(
            ((row.name, state.value), float(row.state is state))
            for row in self._view.plan.tiers
            for state in TierState
        )
        moves = {(left, to, _short(reason)): 0 for left, to, reason in self._view.fallbacks()}
        for (left, to, reason), count in self._view.fallbacks().items():
            moves[left, to, _short(reason)] += count
        yield _counter(
            "marchproxy_fallbacks_total", "Moves of a service to another tier.", "from", "to", "reason"
        ).of(moves.items())

    def _traffic(self) -> Iterator[Metric]:
        rows = self._configured()
        ends = ("service", "tier")
        yield _counter(
            "marchproxy_bytes_transferred_total",
            "Bytes moved, in: from clients to backends; payload, or IP packets in packet tiers.",
            *ends,
            "direction",
        ).of(
            ((service, tier, direction), count)
            for tier, service, stats in rows
            for direction, count in (("in", stats.bytes_in), ("out", stats.bytes_out))
        )
        yield _counter(
            "marchproxy_packets_total",
            "Packets or datagrams moved, where a tier sees them.",
            *ends,
            "direction",
        ).of(
            ((service, tier, direction), count)
            for tier, service, stats in rows
            if self._sees_packets(service, stats)
            for direction, count in (("in", stats.packets_in), ("out", stats.packets_out))
        )
        yield _counter(
            "marchproxy_packets_seen_total",
            "All packets that a packet tier's program saw, of no service too, by what became of them.",
            "tier",
            "reason",
        ).of(
            ((tier, reason), count)
            for tier, stats in sorted(self._view.stats().items())
            for reason, count in bounded_reasons(stats.packets_seen).items()
        )
        if by_xdp := self._view.stats().get(_XDP, TierStats()).packets_seen:
            yield _counter("marchproxy_xdp_total_packets_total", "All packets that the XDP program saw.").of(
                [((), sum(by_xdp.values()))]
            )
        yield _counter(
            "marchproxy_connections_opened_total", "Connections and flows that were taken.", *ends
        ).of(((service, tier), stats.connections_opened) for tier, service, stats in rows)
        yield _gauge("marchproxy_connections_active", "Connections and flows that are open.", *ends).of(
            ((service, tier), stats.connections_active) for tier, service, stats in rows
        )
        yield _counter(
            "marchproxy_drops_total", "Refused connections and dropped packets.", "tier", "service", "reason"
        ).of(
            ((tier, service, reason), count)
            for tier, service, stats in rows
            for reason, count in bounded_reasons(stats.drops).items()
        )

    def _backends(self) -> Iterator[Metric]:
        rows = self._view.board.rows()
        of = ("service", "backend")
        yield _gauge("marchproxy_backend_health", "1 for the state that a backend is in.", *of, "state").of(
            ((row.service, str(row.backend), state.value), float(row.health is state))
            for row in rows
            for state in Health
        )
        yield _gauge("marchproxy_backend_check_latency_seconds", "How long the last check took.", *of).of(
            ((row.service, str(row.backend)), row.last_check_latency_s)
            for row in rows
            if row.last_check_latency_s is not None
        )
        yield _counter("marchproxy_backend_failures_total", "Failed checks and connections.", *of).of(
            ((row.service, str(row.backend)), row.failures_total) for row in rows
        )
        active = backend_connections(self._view.stats())
        yield _gauge("marchproxy_backend_connections_active", "Open connections to a backend.", *of).of(
            ((row.service, str(row.backend)), active[row.service, str(row.backend)]) for row in rows
        )

    def _configured(self) -> list[tuple[str, str, ServiceStats]]:
        known = {service.name for service in self._view.config.services}
        return [
            (tier, service, stats)
            for tier, tier_stats in sorted(self._view.stats().items())
            for service, stats in sorted(tier_stats.services.items())
            if service in known
        ]

    def _sees_packets(self, name: str, stats: ServiceStats) -> bool:
        udp = {s.name for s in self._view.config.services if s.protocol is Protocol.UDP}
        return name in udp or bool(stats.packets_in or stats.packets_out)


def bounded_reasons(drops: Mapping[str, int]) -> dict[str, int]:
    """Return drops by reason: at most 64 reasons that are short names, and the rest summed as ``other``."""
    result: dict[str, int] = {}
    for reason, count in sorted(drops.items()):
        label = _short(reason)
        if label not in result and len(result) >= _MAX_REASONS:
            label = OTHER
        result[label] = result.get(label, 0) + count
    return result


def _short(reason: str) -> str:
    return reason if _REASON.fullmatch(reason) else OTHER


def exposition(view: EngineView) -> MetricsPage:
    """Build the page for one engine: its collector and the control process's own metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(EngineCollector(view))
    ProcessCollector(registry=registry)
    return MetricsPage(registry)


@final
@attrs.frozen(eq=False)
class MetricsPage:
    """What ``GET /metrics`` answers."""

    _registry: CollectorRegistry

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type, in the format that the ``Accept`` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


@attrs.frozen
class _Family:
    """A metric family still without samples."""

    metric: CounterMetricFamily | GaugeMetricFamily

    def of(self, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        for labels, value in samples:
            self.metric.add_metric(labels, value)
        return self.metric


def _counter(name: str, text: str, *labels: str) -> _Family:
    return _Family(CounterMetricFamily(name, text, labels=labels))


def _gauge(name: str, text: str, *labels: str) -> _Family:
    return _Family(GaugeMetricFamily(name, text, labels=labels))


def _build_info() -> Metric:
    info = InfoMetricFamily("marchproxy_build", "What runs.")
    info.add_metric((), {"version": version(), "python": platform.python_version()})
    return info
