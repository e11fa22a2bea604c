"""What a run leaves behind: JSON with all that reproduces it, the tables as Markdown, the plot as SVG."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from bench import files, judge, plot, report
from bench.files import Occasion
from bench.peers import Peer
from bench.placing import Cpus, place
from bench.readings import Gap, Reading
from bench.tabulating import markdown
from bench.workloads import GENERATORS, Workload

_FORMAT = 2


@attrs.frozen(kw_only=True)
class Run:
    """One run: what was asked for, and what came out."""

    occasion: Occasion
    peers: Sequence[Peer]
    workloads: Sequence[Workload]
    gaps: Sequence[Gap]
    readings: Sequence[Reading]
    versions: Mapping[str, str]
    """Of the peers, by name, when the run began."""

    @property
    def brake(self) -> float:
        """The share that the brake takes from the proxy's CPU in those workloads that have one."""
        return max((cpus.brake for cpus in self.placement.values()), default=0.0)

    @property
    def placement(self) -> dict[str, Cpus]:
        """Which CPUs are whose, by workload."""
        usable = os.sched_getaffinity(0)
        return {
            workload.name: place(usable, workload.when_tight, workload.brake) for workload in self.workloads
        }

    @property
    def titles(self) -> dict[str, str]:
        """What the peers are called, by name."""
        return {peer.name: peer.title for peer in self.peers}


def write(run: Run, directory: Path) -> list[Path]:
    """Write ``latest.json``, ``latest.md`` and ``latest.svg`` into a directory; return their paths."""
    figures = judge.figures(run.readings)
    versions = versions_then_and_now(run)
    return files.write(
        directory,
        "latest",
        json_=as_json(run, figures, versions),
        md=as_markdown(run, figures, versions),
        svg=plot.svg(figures, run.titles, run.occasion.caption),
    )


def versions_of(peers: Sequence[Peer]) -> dict[str, str]:
    """Return which version of each peer is here now. Runs programs; blocks."""
    return {peer.name: peer.version() for peer in peers}


def versions_then_and_now(run: Run) -> dict[str, str]:
    """Return which version of each peer was measured, or that it changed meanwhile. Runs programs; blocks."""
    now = versions_of(run.peers)
    return {name: _what_was_measured(began, now[name]) for name, began in run.versions.items()}


def _what_was_measured(began: str, ended: str) -> str:
    """An editable install measures whatever is in the tree at each turn, so say when that was not one thing."""
    return began if began == ended else f"CHANGED DURING THE RUN, from {began} to {ended}"


def as_json(
    run: Run,
    figures: Sequence[judge.Figure],
    versions: Mapping[str, str],
    generators: Mapping[str, Callable[[], str]] = GENERATORS,
) -> dict[str, object]:
    """Return a run as plain values; refused figures are there too, marked by their reason."""
    return {
        "format": _FORMAT,
        **run.occasion.as_json(),
        "cpus": {
            name: {"proxy": sorted(cpus.proxy), "generators": sorted(cpus.generators), "brake": cpus.brake}
            for name, cpus in run.placement.items()
        },
        "generators": {name: tool() for name, tool in generators.items()},
        "peers": {
            peer.name: {
                "title": peer.title,
                "version": versions[peer.name],
                "started_as": _configurations(run, peer),
            }
            for peer in run.peers
        },
        "left_out": [attrs.asdict(gap) for gap in run.gaps],
        "figures": [_figure_as_json(figure) for figure in figures],
        "readings": [attrs.asdict(reading) for reading in run.readings],
    }


def as_markdown(run: Run, figures: Sequence[judge.Figure], versions: Mapping[str, str]) -> str:
    """Return the tables with what a reader must know about them."""
    remarks = [f"{run.titles[name]}: {version}" for name, version in versions.items()]
    remarks += [f"left out: {gap}" for gap in run.gaps]
    remarks += report.notes(figures, run.readings, run.brake)
    return files.page("Latest run", run.occasion, remarks, markdown(report.sheets(figures, run.titles)))


def _configurations(run: Run, peer: Peer) -> dict[str, object]:
    """Return the command line and the files that start a peer, by workload."""
    found: dict[str, object] = {}
    for workload in run.workloads:
        if workload.takes(peer):
            with tempfile.TemporaryDirectory(prefix="marchproxy-bench-") as name:
                argv = peer.write(Path(name), workload.service("198.18.0.1", "198.18.1.2"))
                files = {
                    file.name: file.read_text(encoding="utf-8")
                    for file in sorted(Path(name).iterdir())
                    if file.suffix != ".pem"
                }
            found[workload.name] = json.loads(
                json.dumps({"argv": argv, "files": files}).replace(name, "DIRECTORY")
            )
    return found


def _figure_as_json(figure: judge.Figure) -> dict[str, object]:
    return {
        "metric": figure.metric.key,
        "peer": figure.peer,
        "median": figure.median if figure.values else None,
        "ratios": [attrs.asdict(ratio) for ratio in figure.ratios],
        "refused": figure.refused,
        "values": list(figure.values),
        "cpu": attrs.asdict(figure.cpu) if figure.cpu else None,
        "per_cpu_second": figure.per_cpu,
        "failures": list(figure.failures),
        "disturbed_rounds": figure.disturbed,
    }
