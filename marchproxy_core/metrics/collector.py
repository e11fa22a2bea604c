"""Every metric of the engine: its name, its labels, and where the numbers are read."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, final

import attrs
from prometheus_client.core import InfoMetricFamily
from prometheus_client.registry import Collector

from marchproxy_core.admin.answers import backend_connections
from marchproxy_core.admin.view import EngineView
from marchproxy_core.metrics.families import counter, gauge
from marchproxy_core.metrics.reasons import bounded_reasons, short
from marchproxy_core.metrics.requests import request_metrics
from marchproxy_core.model import Health, ServiceStats, TierState, TierStats
from marchproxy_core.services import Protocol
from marchproxy_core.version import version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

_XDP = "xdp"
"""The tier whose sum has a name of its own: dashboards for MarchProxy know it."""


@final
@attrs.frozen(eq=False)
class EngineCollector(Collector):
    """Reads the engine when Prometheus asks."""

    _view: EngineView

    def collect(self) -> Iterator[Metric]:
        """Yield every metric. Called in the trio thread, and does not block."""
        yield _build_info()
        yield gauge("marchproxy_start_time_seconds", "When the daemon started, in seconds since 1970.").of(
            [((), self._view.started_at.timestamp())]
        )
        yield gauge(
            "marchproxy_ready", "1 while every service is carried and the daemon is not draining."
        ).of([((), float(self._view.ready))])
        yield from self._tiers()
        yield from self._traffic()
        yield from request_metrics(self._of_http())
        yield from self._backends()

    def _tiers(self) -> Iterator[Metric]:
        yield gauge("marchproxy_tier_state", "1 for the state that a tier is in.", "tier", "state").of(
            ((row.name, state.value), float(row.state is state))
            for row in self._view.plan.tiers
            for state in TierState
        )
        moves = {(left, to, short(reason)): 0 for left, to, reason in self._view.fallbacks()}
        for (left, to, reason), count in self._view.fallbacks().items():
            moves[left, to, short(reason)] += count
        yield counter(
            "marchproxy_fallbacks_total", "Moves of a service to another tier.", "from", "to", "reason"
        ).of(moves.items())

    def _traffic(self) -> Iterator[Metric]:
        rows = self._configured()
        ends = ("service", "tier")
        yield counter(
            "marchproxy_bytes_transferred_total",
            "Bytes moved, in: from clients to backends; payload, or IP packets in packet tiers.",
            *ends,
            "direction",
        ).of(
            ((service, tier, direction), count)
            for tier, service, stats in rows
            for direction, count in (("in", stats.bytes_in), ("out", stats.bytes_out))
        )
        yield counter(
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
        yield counter(
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
            yield counter("marchproxy_xdp_total_packets_total", "All packets that the XDP program saw.").of(
                [((), sum(by_xdp.values()))]
            )
        yield counter(
            "marchproxy_connections_opened_total", "Connections and flows that were taken.", *ends
        ).of(((service, tier), stats.connections_opened) for tier, service, stats in rows)
        yield gauge("marchproxy_connections_active", "Connections and flows that are open.", *ends).of(
            ((service, tier), stats.connections_active) for tier, service, stats in rows
        )
        yield counter(
            "marchproxy_drops_total", "Refused connections and dropped packets.", "tier", "service", "reason"
        ).of(
            ((tier, service, reason), count)
            for tier, service, stats in rows
            for reason, count in bounded_reasons(stats.drops).items()
        )

    def _backends(self) -> Iterator[Metric]:
        rows = self._view.board.rows()
        of = ("service", "backend")
        yield gauge("marchproxy_backend_health", "1 for the state that a backend is in.", *of, "state").of(
            ((row.service, str(row.backend), state.value), float(row.health is state))
            for row in rows
            for state in Health
        )
        yield gauge("marchproxy_backend_check_latency_seconds", "How long the last check took.", *of).of(
            ((row.service, str(row.backend)), row.last_check_latency_s)
            for row in rows
            if row.last_check_latency_s is not None
        )
        yield counter("marchproxy_backend_failures_total", "Failed checks and connections.", *of).of(
            ((row.service, str(row.backend)), row.failures_total) for row in rows
        )
        active = backend_connections(self._view.stats())
        yield gauge("marchproxy_backend_connections_active", "Open connections to a backend.", *of).of(
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

    def _of_http(self) -> list[tuple[str, str, ServiceStats]]:
        http = {service.name for service in self._view.config.services if service.http is not None}
        return [row for row in self._configured() if row[1] in http or row[2].saw_requests]

    def _sees_packets(self, name: str, stats: ServiceStats) -> bool:
        udp = {s.name for s in self._view.config.services if s.protocol is Protocol.UDP}
        return name in udp or bool(stats.packets_in or stats.packets_out)


def _build_info() -> Metric:
    info = InfoMetricFamily("marchproxy_build", "What runs.")
    info.add_metric((), {"version": version(), "python": platform.python_version()})
    return info
