"""What is measured: the names, units and targets of all figures. Pure values."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Metric:
    """One figure of a workload.

    Args:
        key: Its name in the JSON.
        workload: The workload that gives it.
        title: What it is called in tables, with its unit.
        digits: Digits after the point.
        more_is_better: Whether a higher figure is the better one.
        target: The ratio to HAProxy in the same run that the sockets tier is to reach, if there is one: at least
            that much where more is better, else at most.
        needs_saturation: Whether the figure says something about a proxy only if that was the bottleneck.
    """

    key: str
    workload: str
    title: str
    digits: int = 0
    more_is_better: bool = True
    target: float | None = None
    needs_saturation: bool = True

    def show(self, value: float) -> str:
        """Write a value with the metric's digits and thousands separators."""
        return f"{value:,.{self.digits}f}"

    def reaches(self, ratio: float) -> bool:
        """Whether a ratio to HAProxy is as good as the target; True where there is none."""
        if self.target is None:
            return True
        return ratio >= self.target if self.more_is_better else ratio <= self.target


METRICS = (
    Metric(key="bulk_gbit_s", workload="bulk", title="bulk, Gbit/s", digits=2, target=1.8),
    Metric(key="requests_s", workload="requests", title="keep-alive requests/s", target=1.0),
    Metric(key="p50_us", workload="requests", title="p50 latency, µs", more_is_better=False),
    Metric(key="p99_us", workload="requests", title="p99 latency, µs", more_is_better=False, target=1.2),
    Metric(key="connections_s", workload="connections", title="new connections/s", target=0.8),
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

WORKLOADS = ("bulk", "requests", "connections", "udp", "memory")


def metrics_of(workload: str) -> tuple[Metric, ...]:
    """Return the figures that a workload gives, in the order of the tables."""
    return tuple(metric for metric in METRICS if metric.workload == workload)
