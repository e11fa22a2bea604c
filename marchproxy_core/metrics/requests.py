"""Metrics of services that are read as HTTP: requests, how long they took, and what cache and pools did for them."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from marchproxy_core.metrics.families import counter, gauge
from marchproxy_core.workers.ledger import ANSWERS, CACHE, DURATION_BOUNDS_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from marchproxy_core.model import ServiceStats

_BOUNDS = [*map(floatToGoString, DURATION_BOUNDS_S), "+Inf"]


def request_metrics(rows: Sequence[tuple[str, str, ServiceStats]]) -> Iterator[Metric]:
    """Yield the metrics of HTTP; none at all where there is no row.

    Args:
        rows: Tier, service and its counters, for each service that is read as HTTP.
    """
    if not rows:
        return
    ends = ("service", "tier")
    yield counter(
        "marchproxy_requests_total", "Requests, by the class of their answer's status.", *ends, "code"
    ).of(
        ((service, tier, code), stats.answers.get(code, 0))
        for tier, service, stats in rows
        for code in ANSWERS
    )
    yield _durations(rows)
    yield counter(
        "marchproxy_cache_requests_total", "Requests, by what the cache had for them.", *ends, "outcome"
    ).of(
        ((service, tier, outcome), stats.cache.get(outcome, 0))
        for tier, service, stats in rows
        for outcome in CACHE
    )
    yield counter("marchproxy_retries_total", "Attempts after the first one of a request.", *ends).of(
        ((service, tier), stats.retries) for tier, service, stats in rows
    )
    yield counter(
        "marchproxy_backend_connections_reused_total",
        "Requests sent on a connection to a backend that had served before.",
        *ends,
    ).of(((service, tier), stats.reused) for tier, service, stats in rows)
    yield gauge("marchproxy_websockets_active", "WebSocket connections that are open.", *ends).of(
        ((service, tier), stats.websockets_active) for tier, service, stats in rows
    )


def _durations(rows: Sequence[tuple[str, str, ServiceStats]]) -> Metric:
    family = HistogramMetricFamily(
        "marchproxy_request_duration_seconds",
        "How long requests took, in seconds.",
        labels=("service", "tier"),
    )
    for tier, service, stats in rows:
        family.add_metric((service, tier), cumulative(stats.durations), stats.duration_sum_s)
    return family


def cumulative(durations: tuple[int, ...]) -> list[tuple[str, float]]:
    """Return Prometheus' buckets: for each bound how many took no longer; the last, ``+Inf``, has them all.

    Args:
        durations: As :attr:`ServiceStats.durations`. A tier that counts by fewer or more bounds loses no request.
    """
    missing = len(_BOUNDS) - len(durations)
    sums: list[float] = list(accumulate((*durations, *[0] * missing)))
    return [*zip(_BOUNDS[:-1], sums, strict=False), ("+Inf", sums[-1])]
