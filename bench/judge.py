"""What the readings are worth: medians, ratios, and whether the proxy was the bottleneck. Pure.

The rule. A figure says something about a proxy only if the proxy was what limited it. Two measurements decide:

1. *The worker had work all the time*: the proxy's busiest thread ran, or waited for its CPU, at least 90 % of the
   time (median of the rounds). A worker that idles waits for its peers, so the generator was the bottleneck.
2. *The generator can do more*: a rate is at most 90 % of what the same generator reaches without a proxy in between.

A figure that fails either is not printed. Of a rate, a bound is left: the proxy could do at least that much, so its
ratio to a reference that was judged sound is at least what was seen. Rules in the kernel have no thread of their own:
their row is the limit of this machine and these generators, and is not judged; nor is memory: it has no bottleneck.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import attrs

from bench.metrics import METRICS, Metric
from bench.readings import CpuShare, Reading

SATURATED = 0.9
HEADROOM = 0.9
REFERENCE = "haproxy"
LIMITS = frozenset({"kernel", "direct"})
"""Rows that are no proxy's: what the kernel does, and what the generator does, alone."""


@attrs.frozen(kw_only=True)
class Figure:
    """One metric of one peer over all rounds.

    Args:
        metric: Which metric.
        peer: Whose.
        values: One per round that did not fail.
        cpu: Medians of the CPU shares; None for workloads without.
        ratio: To the reference's median; None where either is refused or missing.
        at_least: Of a refused rate, the ratio that it has at least; None as above.
        decides: Whether a target may be judged by it: neither it nor the reference was disturbed for half the rounds.
        refused: Why the figure says nothing about the proxy; None: it is printed.
        failures: What went wrong in the rounds that failed.
        disturbed: Rounds in which strangers used over a tenth of a CPU.
    """

    metric: Metric
    peer: str
    values: tuple[float, ...]
    cpu: CpuShare | None = None
    ratio: float | None = None
    at_least: float | None = None
    decides: bool = False
    refused: str | None = None
    failures: tuple[str, ...] = ()
    disturbed: int = 0

    @property
    def is_disturbed(self) -> bool:
        """Whether strangers disturbed at least half of the rounds, and so the median."""
        return self.disturbed * 2 >= len(self.values) > 0

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def per_cpu(self) -> float | None:
        """A rate by second of the proxy's own CPU time, all its threads; hardly moved by who else uses the machine."""
        if self.cpu is None or not self.cpu.proxy_run or not self.metric.more_is_better:
            return None
        return self.median / self.cpu.proxy_run


def figures(readings: Sequence[Reading]) -> tuple[Figure, ...]:
    """Return all figures of a run, in the order of the metrics, then of the peers' first turn."""
    peers = tuple(dict.fromkeys(reading.peer for reading in readings))
    found: list[Figure] = []
    for metric in METRICS:
        plain = [figure for peer in peers if (figure := _figure(metric, peer, readings)) is not None]
        direct = next((figure.median for figure in plain if figure.peer == "direct" and figure.values), None)
        judged = [attrs.evolve(figure, refused=refusal(figure, direct)) for figure in plain]
        base = next((figure for figure in judged if figure.peer == REFERENCE), None)
        found.extend(_compared(figure, base) for figure in judged)
    return tuple(found)


def refusal(figure: Figure, direct: float | None) -> str | None:
    """Return why a figure says nothing about its peer, by the rule of this module; None: it does.

    Args:
        figure: With its values and CPU shares.
        direct: The same metric's median without a proxy; None: not measured.
    """
    if not figure.values or not figure.metric.needs_saturation or figure.peer in LIMITS:
        return None
    if figure.cpu is None:
        return "generator-bound: nobody looked at the CPUs"
    if figure.cpu.demand < SATURATED:
        return f"generator-bound: the worker had work only {figure.cpu.demand:.0%} of the time"
    if figure.metric.more_is_better and direct is not None and figure.median > HEADROOM * direct:
        return f"generator-bound: without a proxy it reaches {figure.metric.show(direct)}, hardly more"
    return None


def _figure(metric: Metric, peer: str, readings: Iterable[Reading]) -> Figure | None:
    own = [reading for reading in readings if reading.peer == peer and reading.workload == metric.workload]
    measured = [reading.measured for reading in own if reading.measured is not None]
    values = tuple(one.values[metric.key] for one in measured if metric.key in one.values)
    failures = tuple(reading.failure for reading in own if reading.failure is not None)
    if not values and not failures:
        return None
    shares = [one.cpu for one in measured if one.cpu is not None]
    return Figure(
        metric=metric,
        peer=peer,
        values=values,
        cpu=_medians(shares) if shares else None,
        failures=failures,
        disturbed=sum(share.disturbed for share in shares),
    )


def _compared(figure: Figure, base: Figure | None) -> Figure:
    """Return a figure with its ratio to the reference, or with the least that this is."""
    if base is None or not base.values or base.refused or not base.median or not figure.values:
        return figure
    ratio = figure.median / base.median
    figure = attrs.evolve(figure, decides=not (figure.is_disturbed or base.is_disturbed))
    if figure.refused is None:
        return attrs.evolve(figure, ratio=ratio)
    return attrs.evolve(figure, at_least=ratio) if figure.metric.more_is_better else figure


def _medians(shares: Sequence[CpuShare]) -> CpuShare:
    def median(name: str) -> float:
        return statistics.median(float(getattr(share, name)) for share in shares)

    # The median of the sums, not the sum of the medians, is what the rule asks about: keep it exact through the wait.
    run = median("worker_run")
    return CpuShare(
        worker_run=run,
        worker_wait=statistics.median(share.demand for share in shares) - run,
        proxy_run=median("proxy_run"),
        proxy_cpu=median("proxy_cpu"),
        generator_cpus=median("generator_cpus"),
        strangers=median("strangers"),
    )
