"""The tables: one per metric, on the terminal and in Markdown, made of the same cells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from bench.judge import KERNEL, REFERENCE, Figure
from bench.metrics import METRICS, WANTED_IDLE, Metric
from bench.readings import DISTURBED, Reading

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
_TEXT = ("peer", "min - max")


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


def tables(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return each metric's heading and rows, the head among them, without the columns that would be empty.

    Args:
        figures: Of one run.
        titles: What peers are called, by name.
    """
    found = []
    for metric in METRICS:
        rows = [cells(figure, titles[figure.peer]) for figure in figures if figure.metric is metric]
        if rows:
            filled = [number for number in range(len(HEAD)) if any(row[number] for row in rows)]
            found.append(
                (heading(metric), [tuple(row[number] for number in filled) for row in (HEAD, *rows)])
            )
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


def rich_tables(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[Table]:
    """Return the tables for a terminal."""
    made = []
    for title, rows in tables(figures, titles):
        table = Table(title=title, title_justify="left")
        for name in rows[0]:
            table.add_column(name, justify="left" if name in _TEXT else "right")
        for row in rows[1:]:
            table.add_row(*row)
        made.append(table)
    return made


def markdown(figures: Sequence[Figure], titles: Mapping[str, str]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for title, rows in tables(figures, titles):
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        rule = "|" + "|".join("---" if name in _TEXT else "--:" for name in rows[0]) + "|"
        parts.append("\n".join([f"## {title}", "", lines[0], rule, *lines[1:]]))
    return "\n\n".join(parts)


def _percent(share: float) -> str:
    return f"{share:.0%}"
