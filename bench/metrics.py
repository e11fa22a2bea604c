"""What is measured: the names, units and targets of all figures. Pure values."""

from __future__ import annotations

import attrs


@attrs.frozen
class Target:
    """A ratio that one peer is to reach by another in the same run."""

    peer: str
    reference: str
    ratio: float


@attrs.frozen(kw_only=True)
class Metric:
    """One figure of a workload.

    Args:
        key: Its name in the JSON.
        workload: The workload that gives it.
        title: What it is called in tables, with its unit.
        digits: Digits after the point.
        more_is_better: Whether a higher figure is the better one.
        targets: Ratios that our own peers are to reach: at least that much where more is better, else at most.
        needs_saturation: Whether the figure says something about a proxy only if that was the bottleneck.
    """

    key: str
    workload: str
    title: str
    digits: int = 0
    more_is_better: bool = True
    targets: tuple[Target, ...] = ()
    needs_saturation: bool = True

    def show(self, value: float) -> str:
        """Write a value with the metric's digits and thousands separators."""
        return f"{value:,.{self.digits}f}"

    def target(self, peer: str, reference: str) -> float | None:
        """Return the ratio that a peer is to reach by another; None where there is no such target."""
        found = (one.ratio for one in self.targets if (one.peer, one.reference) == (peer, reference))
        return next(found, None)

    def reaches(self, ratio: float, target: float) -> bool:
        """Whether a ratio is as good as the target."""
        return ratio >= target if self.more_is_better else ratio <= target


_SHARED = ", CPUs shared"

METRICS = (
    Metric(
        key="bulk_gbit_s",
        workload="bulk",
        title="bulk, Gbit/s",
        digits=2,
        targets=(
            Target("marchproxy", "haproxy", 1.8),
            Target("marchproxy-ebpf", "haproxy", 2.1),
            Target("marchproxy-ebpf", "kernel", 0.95),
        ),
    ),
    Metric(
        key="requests_s",
        workload="requests",
        title="keep-alive requests/s",
        targets=(Target("marchproxy", "haproxy", 1.0),),
    ),
    Metric(key="p50_us", workload="requests", title="p50 latency, µs", more_is_better=False),
    Metric(
        key="p99_us",
        workload="requests",
        title="p99 latency, µs",
        more_is_better=False,
        targets=(Target("marchproxy", "haproxy", 1.2),),
    ),
    Metric(
        key="connections_s",
        workload="connections",
        title="new connections/s",
        targets=(Target("marchproxy", "haproxy", 0.8),),
    ),
    Metric(
        key="shared_requests_s",
        workload="shared_requests",
        title=f"keep-alive requests/s{_SHARED}",
        targets=(
            Target("marchproxy-ebpf", "haproxy", 1.9),
            Target("marchproxy-ebpf", "kernel", 1.05),
        ),
    ),
    Metric(
        key="shared_p50_us",
        workload="shared_requests",
        title=f"p50 latency, µs{_SHARED}",
        more_is_better=False,
    ),
    Metric(
        key="shared_p99_us",
        workload="shared_requests",
        title=f"p99 latency, µs{_SHARED}",
        more_is_better=False,
    ),
    Metric(
        key="shared_connections_s",
        workload="shared_connections",
        title=f"new connections/s{_SHARED}",
        targets=(Target("marchproxy-ebpf", "kernel", 1.2),),
    ),
    Metric(
        key="rest_p50_us",
        workload="latency",
        title="p50 latency at rest, one connection, µs",
        digits=1,
        more_is_better=False,
        needs_saturation=False,
    ),
    Metric(
        key="rest_p99_us",
        workload="latency",
        title="p99 latency at rest, one connection, µs",
        digits=1,
        more_is_better=False,
        needs_saturation=False,
    ),
    Metric(key="packets_s", workload="udp", title="UDP packets/s"),
    Metric(
        key="pss_unused_mib",
        workload="memory",
        title="memory without connections, MiB",
        digits=1,
        more_is_better=False,
        needs_saturation=False,
    ),
    Metric(
        key="pss_idle_mib",
        workload="memory",
        title="memory with idle connections, MiB",
        digits=1,
        more_is_better=False,
        needs_saturation=False,
    ),
    Metric(
        key="pss_connection_kib",
        workload="memory",
        title="memory by idle connection, KiB",
        digits=2,
        more_is_better=False,
        needs_saturation=False,
    ),
    Metric(
        key="kernel_idle_mib",
        workload="memory",
        title="kernel memory of all three hosts for them, MiB",
        digits=1,
        more_is_better=False,
        needs_saturation=False,
    ),
)

WANTED_IDLE = 10_000
"""How many connections idle while memory is measured, unless the limit of open files admits fewer."""

WORKLOADS = (
    "bulk",
    "requests",
    "connections",
    "shared_requests",
    "shared_connections",
    "latency",
    "udp",
    "memory",
)


def metrics_of(workload: str) -> tuple[Metric, ...]:
    """Return the figures that a workload gives, in the order of the tables."""
    return tuple(metric for metric in METRICS if metric.workload == workload)
