"""The tables, one for each metric, and what must be said of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.judge import KERNEL, REFERENCE, Figure
from bench.metrics import METRICS, WANTED_IDLE, Metric
from bench.readings import DISTURBED, Reading
from bench.tabulating import Sheet

HEAD = (
    "peer",
    "median",
    "ratio to HAProxy",
    "ratio to nftables",
    "min - max",
    "worker ran",
    "waited",
    "generator CPUs",
    "per CPU s",
)
_TEXT = frozenset({"peer", "min - max"})


_NAMES = {
    "marchproxy": "sockets",
    "marchproxy-ebpf": "ebpf",
    "marchproxy-xdp": "xdp",
    REFERENCE: "HAProxy",
    KERNEL: "nftables",
}


def heading(metric: Metric) -> str:
    """Return a table's title: the metric, which way is better, the targets."""
    better = "more is better" if metric.more_is_better else "less is better"
    sign = ">=" if metric.more_is_better else "<="
    targets = ", ".join(
        f"{_NAMES[one.peer]} {sign} {one.ratio:g} x {_NAMES[one.reference]}" for one in metric.targets
    )
    return f"{metric.title} ({better}{'; target: ' if targets else ''}{targets})"


def cells(figure: Figure, title: str) -> tuple[str, ...]:
    """Return one row of a table, as many cells as ``HEAD`` has."""
    if not figure.values:
        return (title, "failed", "", "", "see below", "", "", "", "")
    share = figure.cpu
    shares = (
        ("", "", "")
        if share is None
        else (_percent(share.worker_run), _percent(share.worker_wait), _percent(share.generator_cpus))
    )
    ratios = (_ratio(figure, REFERENCE), _ratio(figure, KERNEL))
    if figure.refused is not None:
        why = figure.refused.partition(": ")[2]
        return (title, "generator-bound", *ratios, why, *shares, "")
    show = figure.metric.show
    spread = f"{show(min(figure.values))} - {show(max(figure.values))}"
    per_cpu = "" if figure.per_cpu is None else show(figure.per_cpu)
    failed = f" ({len(figure.failures)} failed)" if figure.failures else ""
    return (title, show(figure.median) + failed, *ratios, spread, *shares, per_cpu)


def sheets(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[Sheet]:
    """Return each metric's table, without the columns that would be empty.

    Args:
        figures: Of one run.
        titles: What peers are called, by name.
    """
    found = []
    for metric in METRICS:
        rows = [cells(figure, titles[figure.peer]) for figure in figures if figure.metric is metric]
        if rows:
            sheet = Sheet(title=heading(metric), head=HEAD, rows=rows, text=_TEXT)
            found.append(sheet.without_empty_columns())
    return found


def notes(figures: Sequence[Figure], readings: Sequence[Reading], brake: float) -> list[str]:
    """Return what a reader must know about this run's figures.

    Args:
        figures: Of one run.
        readings: Of the same run.
        brake: The share that was taken from the proxy's CPU.
    """
    told = []
    if brake:
        told.append(
            f"For small messages the proxy's CPU was braked by {brake:.0%}, for each proxy alike, since this host has "
            "only two CPUs: compare these by ratio, not with the two limits."
        )
    idle = {one.measured.notes.get("connections") for one in readings if one.measured is not None}
    told.extend(f"Idle connections: {count:,.0f}{_why_fewer(count)}." for count in idle if count is not None)
    if not any(figure.peer == REFERENCE and figure.values for figure in figures):
        told.append("No ratios: HAProxy was not measured.")
    disturbed = {
        (figure.metric.workload, figure.peer): figure.disturbed for figure in figures if figure.disturbed
    }
    if disturbed:
        turns = ", ".join(f"{peer} {workload} {count}" for (workload, peer), count in disturbed.items())
        told.append(
            f"Disturbed: other processes of the machine used over {DISTURBED:.0%} of a CPU, even when repeated; "
            f"by peer, workload and number of rounds: {turns}."
        )
    failures = {
        f"{figure.peer} {figure.metric.workload}: {why}" for figure in figures for why in figure.failures
    }
    told.extend(f"Failed: {failure}" for failure in sorted(failures))
    return told


def _ratio(figure: Figure, reference: str) -> str:
    """Write the ratio to a reference; for our own rows, also what that means for their target."""
    ratio, target = figure.ratio_to(reference), figure.metric.target(figure.peer, reference)
    if ratio is None:
        return ""
    shown = f">= {ratio.value:.2f}" if ratio.is_bound else f"{ratio.value:.2f}"
    if target is None:
        return shown
    if not ratio.decides:
        return f"{shown} undecided, disturbed"
    if figure.metric.reaches(ratio.value, target):
        return f"{shown} reached"
    return f"{shown} undecided" if ratio.is_bound else f"{shown} missed"


def _why_fewer(count: float) -> str:
    if count >= WANTED_IDLE:
        return ""
    return f", not {WANTED_IDLE:,}: the limit of open files admits no more; raise it with ulimit -Hn"


def _percent(share: float) -> str:
    return f"{share:.0%}"
