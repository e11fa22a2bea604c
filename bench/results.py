"""What a run leaves behind: JSON with all that reproduces it, the tables as Markdown, the plot as SVG."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

from bench import judge, plot, report
from bench.configurations import Service
from bench.peers import Peer
from bench.placing import Cpus, place
from bench.readings import Gap, Reading
from bench.workloads import GENERATORS, Workload

_FORMAT = 2
_ROOT = Path(__file__).parents[1]


@attrs.frozen(kw_only=True)
class Run:
    """One run: what was asked for, and what came out."""

    rounds: int
    seconds: float
    peers: Sequence[Peer]
    workloads: Sequence[Workload]
    gaps: Sequence[Gap]
    readings: Sequence[Reading]
    versions: Mapping[str, str]
    """Of the peers, by name, when the run began."""
    taken: datetime = attrs.field(factory=lambda: datetime.now(UTC))

    @property
    def brake(self) -> float:
        """The share that the brake takes from the proxy's CPU in those workloads that have one."""
        return max((cpus.brake for cpus in self.placement.values()), default=0.0)

    @property
    def placement(self) -> dict[str, Cpus]:
        """Which CPUs are whose, by workload."""
        usable = os.sched_getaffinity(0)
        return {workload.name: place(usable, workload.when_tight) for workload in self.workloads}

    @property
    def titles(self) -> dict[str, str]:
        """What the peers are called, by name."""
        return {peer.name: peer.title for peer in self.peers}


def write(run: Run, directory: Path) -> list[Path]:
    """Write ``latest.json``, ``latest.md`` and ``latest.svg`` into a directory; return their paths."""
    figures = judge.figures(run.readings)
    host = describe_host()
    caption = f"{run.taken:%Y-%m-%d}, {run.rounds} rounds of {run.seconds:g} s, {host['cpu']}, Linux {host['kernel']}"
    now = versions_of(run.peers)
    versions = {name: _what_was_measured(began, now[name]) for name, began in run.versions.items()}
    contents = {
        "json": _without_root(json.dumps(as_json(run, figures, host, versions), indent=1, ensure_ascii=False))
        + "\n",
        "md": _without_root(as_markdown(run, figures, caption, versions)),
        "svg": plot.svg(figures, run.titles, caption),
    }
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending, content in contents.items():
        path = directory / f"latest.{ending}"
        path.write_text(content, encoding="utf-8")
        paths.append(path)
    return paths


def versions_of(peers: Sequence[Peer]) -> dict[str, str]:
    """Return which version of each peer is here now. Runs programs; blocks."""
    return {peer.name: peer.version() for peer in peers}


def _what_was_measured(began: str, ended: str) -> str:
    """An editable install measures whatever is in the tree at each turn, so say when that was not one thing."""
    return began if began == ended else f"CHANGED DURING THE RUN, from {began} to {ended}"


def as_json(
    run: Run, figures: Sequence[judge.Figure], host: Mapping[str, object], versions: Mapping[str, str]
) -> dict[str, object]:
    """Return a run as plain values; refused figures are there too, marked by their reason."""
    return {
        "format": _FORMAT,
        "taken": run.taken.isoformat(timespec="seconds"),
        "rounds": run.rounds,
        "seconds": run.seconds,
        "host": dict(host),
        "cpus": {
            name: {"proxy": sorted(cpus.proxy), "generators": sorted(cpus.generators), "brake": cpus.brake}
            for name, cpus in run.placement.items()
        },
        "generators": {name: tool() for name, tool in GENERATORS.items()},
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


def as_markdown(run: Run, figures: Sequence[judge.Figure], caption: str, versions: Mapping[str, str]) -> str:
    """Return the tables with what a reader must know about them."""
    lines = [
        "# Latest run",
        "",
        f"{caption}. Written by `make bench`; how to read it: [README](../README.md).",
        "",
    ]
    lines += [f"- {run.titles[name]}: {version}" for name, version in versions.items()]
    lines += [f"- left out: {gap}" for gap in run.gaps]
    lines += [f"- {note}" for note in report.notes(figures, run.readings, run.brake)]
    return "\n".join([*lines, "", report.markdown(figures, run.titles), ""])


def _without_root(text: str) -> str:
    """Take out where the checkout lies: results are for others to read."""
    return text.replace(str(_ROOT), ".")


def describe_host() -> dict[str, object]:
    """Return what the figures depend on but for the peers."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return {
        "kernel": platform.release(),
        "cpu": f"{os.cpu_count()} x {model}",
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


def _configurations(run: Run, peer: Peer) -> dict[str, object]:
    """Return the command line and the files that start a peer, by workload."""
    found: dict[str, object] = {}
    for workload in run.workloads:
        if workload.takes(peer):
            with tempfile.TemporaryDirectory(prefix="marchproxy-bench-") as name:
                service = Service(
                    protocol=workload.protocol, front="198.18.0.1", backend="198.18.1.2", port=workload.port
                )
                argv = peer.write(Path(name), service)
                files = {file.name: file.read_text(encoding="utf-8") for file in sorted(Path(name).iterdir())}
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
