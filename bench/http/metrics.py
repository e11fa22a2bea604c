"""What the HTTP bench measures: the names, units and targets of all figures. Pure values."""

from __future__ import annotations

import attrs

from bench.http.peers import OURS
from bench.http.shape import TWO_WORKERS
from bench.metrics import Metric


@attrs.frozen
class Kind:
    """A kind of traffic: its name, and what a table calls it and its unit of work."""

    name: str
    title: str
    unit: str = "requests"


KINDS = (
    Kind("small", "keep-alive GET, 50 bytes"),
    Kind("varied", "keep-alive GET, 50 bytes, no two heads alike"),
    Kind("medium", "keep-alive GET, 10 KiB"),
    Kind("download", "downloads of 1 MiB"),
    Kind("upload", "uploads of 1 MiB"),
    Kind("connections", "a new connection for each GET", "connections"),
    Kind("tls_full", "TLS 1.3, a full handshake for each GET", "connections"),
    Kind("tls_resumed", "TLS 1.3, a resumed connection for each GET", "connections"),
    Kind("http2", "HTTP/2 over TLS, 32 streams"),
    Kind("websocket", "WebSocket echo, 64 bytes", "messages"),
    Kind("cached", "cached GET, 50 bytes"),
)


@attrs.frozen
class Metrics:
    """The figures of one workload, of which the rate is refused when the proxy was not the bottleneck."""

    rate: Metric
    p50: Metric
    p99: Metric
    cpu: Metric
    memory: Metric


def metrics_of(workload: str) -> Metrics:
    """Return the figures that a workload gives.

    Args:
        workload: Its name; that of a kind, or with the ending of two workers.
    """
    kind = next(one for one in KINDS if one.name == workload.removesuffix(TWO_WORKERS))

    def metric(key: str, title: str, digits: int = 0, *, more: bool = False, judged: bool = True) -> Metric:
        return Metric(
            key=f"{workload}.{key}",
            workload=workload,
            title=title,
            digits=digits,
            more_is_better=more,
            needs_saturation=judged,
        )

    return Metrics(
        rate=metric("rate", f"{kind.unit}/s", more=True),
        p50=metric("p50_us", "p50, µs"),
        p99=metric("p99_us", "p99, µs"),
        cpu=metric("cpu_s", f"CPU s by 100,000 {kind.unit}", 2, judged=False),
        memory=metric("pss_mib", "memory, MiB", 1, judged=False),
    )


@attrs.frozen
class Target:
    """What our tier's rate in one workload is to be, by the rate of a peer in the same run.

    Args:
        workload: Ours.
        reference: The peer's name; our own for another workload of ours.
        ratio: At least.
        by_workload: The peer's, where it is another one.
    """

    workload: str
    reference: str
    ratio: float
    by_workload: str | None = None


TARGETS = (
    Target("small", "envoy", 1.2),
    Target("small", "traefik", 1.4),
    Target("small", "caddy", 2.0),
    Target("small", "haproxy", 0.5),
    Target("small", "nginx", 0.5),
    Target("cached", OURS, 1.5, by_workload="small"),
    Target("cached", "nginx", 0.35),
    Target("download", "haproxy", 1.0),
    Target("upload", "haproxy", 1.0),
    Target("tls_full", "traefik", 1.0),
    Target("tls_resumed", "traefik", 1.0),
)
