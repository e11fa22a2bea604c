"""What the admin API says of a service's counters in each tier. Pure reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.workers.ledger import ANSWERS, CACHE, DURATION_BOUNDS_S

if TYPE_CHECKING:
    from marchproxy_core.model import ServiceStats, TierStats
    from marchproxy_core.services import Service

_BOUNDS = (*map(str, DURATION_BOUNDS_S), "+Inf")


@attrs.frozen(kw_only=True)
class RequestsAnswer:
    """What of HTTP was counted: requests, and what cache and pools did for them."""

    answers: Mapping[str, int]
    """Requests by the class of their answer's status, ``1xx`` to ``5xx``."""
    durations: Mapping[str, int]
    """Requests by how long they took: for each bound in seconds, and ``+Inf``, those that took no longer, and longer
    than the bound before."""
    duration_sum_s: float
    cache: Mapping[str, int]
    """Requests by what the cache had for them."""
    retries: int
    """Attempts after the first one of a request."""
    reused: int
    """Requests sent on a connection to a backend that had served before."""
    websockets_active: int


@attrs.frozen(kw_only=True)
class TrafficAnswer:
    """Counters of one service in one tier since the daemon started."""

    tier: str
    connections_opened: int
    connections_active: int
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    drops: Mapping[str, int]
    requests: RequestsAnswer | None
    """None: the service is not read as HTTP."""


def traffic_of(service: Service, stats: Mapping[str, TierStats]) -> tuple[TrafficAnswer, ...]:
    """Read a service's counters in each tier that has some, given the counters by tier."""
    return tuple(
        _traffic(service, tier, tier_stats.services[service.name])
        for tier, tier_stats in sorted(stats.items())
        if service.name in tier_stats.services
    )


def _traffic(service: Service, tier: str, counters: ServiceStats) -> TrafficAnswer:
    is_http = service.http is not None or counters.saw_requests
    return TrafficAnswer(
        tier=tier,
        connections_opened=counters.connections_opened,
        connections_active=counters.connections_active,
        bytes_in=counters.bytes_in,
        bytes_out=counters.bytes_out,
        packets_in=counters.packets_in,
        packets_out=counters.packets_out,
        drops=dict(counters.drops),
        requests=_requests(counters) if is_http else None,
    )


def _requests(counters: ServiceStats) -> RequestsAnswer:
    durations = counters.durations or (0,) * len(_BOUNDS)
    return RequestsAnswer(
        answers={code: counters.answers.get(code, 0) for code in ANSWERS},
        durations=dict(zip(_BOUNDS, durations, strict=False)),
        duration_sum_s=counters.duration_sum_s,
        cache={outcome: counters.cache.get(outcome, 0) for outcome in CACHE},
        retries=counters.retries,
        reused=counters.reused,
        websockets_active=counters.websockets_active,
    )
