"""What the readings are worth: medians, ratios, and whether the proxy was the bottleneck. Pure.

The rule. A figure says something about a proxy only if the proxy was what limited it. Two measurements decide:

1. *The worker had work all the time*: the proxy's busiest thread ran, or waited for its CPU, at least 90 % of the
   time (median of the rounds). A worker that idles waits for its peers, so the generator was the bottleneck.
2. *The generator can do more*: a rate is at most 90 % of what the same generator reaches without a proxy in between.

A figure that fails either is not printed. Of a rate, a bound is left: the proxy could do at least that much, so its
ratio to a reference that was judged sound is at least what was seen. What runs in the kernel, rules or MarchProxy's
programs, has no thread of its own: its row is the limit of this machine and these generators, and is not judged; nor is
memory: it has no bottleneck.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

import attrs

from bench.metrics import METRICS, Metric
from bench.peers import KERNEL_TIERS
from bench.readings import CpuShare, Reading

SATURATED = 0.9
HEADROOM = 0.9
REFERENCE = "haproxy"
KERNEL = "kernel"
LIMITS = frozenset({KERNEL, "direct"})
"""Rows that are no proxy's: what the kernel does, and what the generator does, alone."""
IN_KERNEL = frozenset({f"marchproxy-{tier}" for tier in KERNEL_TIERS})
"""Rows of our own that have no worker; they alone are compared with the kernel's rules, as nothing slows either."""


@attrs.frozen
class Ratio:
    """A figure by that of a reference.

    Args:
        reference: Whose.
        value: Of medians.
        is_bound: Whether it is at least that, since the figure was refused.
        decides: Whether a target may be judged by it: neither of the two was disturbed for half the rounds.
    """

    reference: str
    value: float
    is_bound: bool
    decides: bool


@attrs.frozen(kw_only=True)
class Figure:
    """One metric of one peer over all rounds.

    Args:
        metric: Which metric.
        peer: Whose.
        values: One per round that did not fail.
        cpu: Medians of the CPU shares; None for workloads without.
        ratios: To the medians of references; those that are refused or missing are not among them.
        refused: Why the figure says nothing about the proxy; None: it is printed.
        failures: What went wrong in the rounds that failed.
        disturbed: Rounds in which strangers used over a tenth of a CPU.
    """

    metric: Metric
    peer: str
    values: tuple[float, ...]
    cpu: CpuShare | None = None
    ratios: tuple[Ratio, ...] = ()
    refused: str | None = None
    failures: tuple[str, ...] = ()
    disturbed: int = 0

    def ratio_to(self, reference: str) -> Ratio | None:
        """Return the ratio to a reference, if there is one."""
        return next((one for one in self.ratios if one.reference == reference), None)

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


def figures(readings: Sequence[Reading], metrics: Sequence[Metric] = METRICS) -> tuple[Figure, ...]:
    """Return all figures of a run, in the order of the metrics, then of the peers' first turn."""
    peers = tuple(dict.fromkeys(reading.peer for reading in readings))
    found: list[Figure] = []
    for metric in metrics:
        plain = [figure for peer in peers if (figure := _figure(metric, peer, readings)) is not None]
        direct = next((figure.median for figure in plain if figure.peer == "direct" and figure.values), None)
        judged = [attrs.evolve(figure, refused=refusal(figure, direct)) for figure in plain]
        bases = {figure.peer: figure for figure in judged if figure.peer in (REFERENCE, KERNEL)}
        found.extend(_compared(figure, bases) for figure in judged)
    return tuple(found)


def refusal(figure: Figure, direct: float | None) -> str | None:
    """Return why a figure says nothing about its peer, by the rule of this module; None: it does.

    Args:
        figure: With its values and CPU shares.
        direct: The same metric's median without a proxy; None: not measured.
    """
    if not figure.values or not figure.metric.needs_saturation or figure.peer in LIMITS | IN_KERNEL:
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


def _compared(figure: Figure, bases: Mapping[str, Figure]) -> Figure:
    """Return a figure with its ratios to the references, or with the least that these are."""
    references = (REFERENCE, KERNEL) if figure.peer in IN_KERNEL else (REFERENCE,)
    ratios = [_ratio(figure, bases[name]) for name in references if name in bases]
    return attrs.evolve(figure, ratios=tuple(one for one in ratios if one is not None))


def _ratio(figure: Figure, base: Figure) -> Ratio | None:
    if not base.values or base.refused or not base.median or not figure.values:
        return None
    if figure.refused is not None and not figure.metric.more_is_better:
        return None
    return Ratio(
        base.peer,
        figure.median / base.median,
        is_bound=figure.refused is not None,
        decides=not (figure.is_disturbed or base.is_disturbed),
    )


def _medians(shares: Sequence[CpuShare]) -> CpuShare:
    def median(name: str) -> float:
        return statistics.median(float(getattr(share, name)) for share in shares)

    # The median of the sums, not the sum of the medians, is what the rule asks about: keep it exact through the wait.
    run = median("worker_run")
    return CpuShare(
        worker_run=run,
        worker_wait=statistics.median(share.demand for share in shares) - run,
        proxy_run=median("proxy_run"),
        proxy_wait=median("proxy_wait"),
        proxy_cpu=median("proxy_cpu"),
        generator_cpus=median("generator_cpus"),
        strangers=median("strangers"),
    )
