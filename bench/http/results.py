"""What a run of the HTTP bench leaves behind: JSON, tables, plot; as bench/results.py, with its own figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from bench import files, judge, plot, report
from bench.http import tables
from bench.http.metrics import metrics_of
from bench.http.targets import outcomes, rates
from bench.http.workloads import GENERATORS
from bench.results import Run, as_json, versions_then_and_now
from bench.tabulating import Sheet, markdown

if TYPE_CHECKING:
    from bench.judge import Figure
    from bench.metrics import Metric


def figures_of(run: Run) -> tuple[Figure, ...]:
    """Return all figures of a run."""
    every = (metrics_of(workload.name) for workload in run.workloads)
    metrics: list[Metric] = [metric for one in every for metric in attrs.astuple(one, recurse=False)]
    return judge.figures(run.readings, metrics)


def tables_of(run: Run, figures: Sequence[Figure]) -> tuple[list[Sheet], list[str]]:
    """Return a run's tables, and what a reader must know about them."""
    return tables.sheets(figures, run.titles), [*_brakes(run), *report.notes(figures, run.readings, 0.0)]


def _brakes(run: Run) -> list[str]:
    """Say which workloads were braked by how much."""
    braked: dict[float, list[str]] = {}
    for name, cpus in run.placement.items():
        if cpus.brake:
            braked.setdefault(cpus.brake, []).append(name)
    return [
        f"The proxy's CPU was braked by {brake:.0%}, for each proxy alike, in {', '.join(names)}, since this host has "
        "only two CPUs: compare these by ratio, not with what there is without a proxy."
        for brake, names in sorted(braked.items())
    ]


def write(run: Run, figures: Sequence[Figure], directory: Path) -> list[Path]:
    """Write ``http.json``, ``http.md`` and ``http.svg`` into a directory; return their paths."""
    versions = versions_then_and_now(run)
    sheets, remarks = tables_of(run, figures)
    about = [f"{run.titles[name]}: {version}" for name, version in versions.items()]
    about += [f"left out: {gap}" for gap in run.gaps]
    of = rates(figures)
    targets = [
        {
            **attrs.asdict(target),
            "found": found and found.value,
            "sign": found and found.sign,
            "outcome": said,
        }
        for target, found, said in outcomes(of)
    ]
    plotted = [metrics_of(workload.name).rate for workload in run.workloads]
    return files.write(
        directory,
        "http",
        json_={**as_json(run, figures, versions, GENERATORS), "targets": targets},
        md=files.page("HTTP", run.occasion, [*about, *remarks], markdown(sheets)),
        svg=plot.svg(list(of.values()), run.titles, run.occasion.caption, plotted),
    )
