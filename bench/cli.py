"""The command line: ``python -m bench``."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio
from rich.console import Console

from bench import judge, report, turns
from bench import results as results_of_a_run
from bench.files import Occasion
from bench.interrupting import until_terminated
from bench.metrics import WORKLOADS as WORKLOAD_NAMES
from bench.metrics import metrics_of
from bench.packets import cli as packets
from bench.packets.traffic import POINTS
from bench.peers import PEERS
from bench.placing import place
from bench.starting import TurnFailed
from bench.tabulating import show
from bench.workloads import WORKLOADS
from marchproxy_core.errors import MarchProxyError

if TYPE_CHECKING:
    from bench.readings import Reading

_TOOLS = {
    "iperf3": "iperf3",
    "wrk": "wrk",
    "nginx": "nginx-light",
    "taskset": "util-linux",
    "nsenter": "util-linux",
}
_RESULTS = Path(__file__).parent / "results"
_FEWEST_ROUNDS = 5
_PEER_NAMES = tuple(peer.name for peer in PEERS)
_PACKETS = "packets"
"""What ``python -m bench.packets`` measures; it has no peers, so it is left out where some are chosen."""
_PARTS = (*WORKLOAD_NAMES, _PACKETS)
_PACKETS_S = 1.0
_WIDTH = 150


class _Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas, of a fixed choice."""

    name = "names"

    def __init__(self, choice: tuple[str, ...]) -> None:
        self._choice = choice

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name for name in str(value).split(",") if name))
        for name in names:
            if name not in self._choice:
                self.fail(f"{name!r} is none of {', '.join(self._choice)}", param, ctx)
        return names or self._choice


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--only", type=_Names(_PARTS), default=",".join(_PARTS), help="Workloads.")
@click.option("--peers", type=_Names(_PEER_NAMES), default=",".join(_PEER_NAMES), help="Peers.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Turns of each peer in each workload.")
@click.option("--seconds", type=click.IntRange(1), default=3, help="How long each generator runs in a turn.")
@click.option(
    "--calm/--no-calm",
    default=True,
    help="Wait for a quiet machine before each turn, and repeat disturbed ones.",
)
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where JSON, tables and plot go.  [default: bench/results for a whole run, else bench/results/partial]",
)
def main(
    only: tuple[str, ...], peers: tuple[str, ...], rounds: int, seconds: int, calm: bool, results: Path | None
) -> None:
    """Measure our tiers and their peers side by side, in turns, in network namespaces; needs root."""
    console = Console(stderr=True)
    all_peers = set(peers) == set(_PEER_NAMES)
    whole = all_peers and set(only) == set(_PARTS) and rounds >= _FEWEST_ROUNDS
    directory = results or (_RESULTS if whole else _RESULTS / "partial")
    try:
        refuse_what_is_missing()
        if only != (_PACKETS,):
            _compare(console, only, peers, rounds, seconds, calm, directory)
        if _PACKETS in only and (all_peers or only == (_PACKETS,)):
            packets.run(packets.ALL, POINTS, rounds, _PACKETS_S, directory)
    except MarchProxyError as error:
        raise click.ClickException(str(error)) from error


def _compare(
    console: Console,
    only: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int,
    seconds: int,
    calm: bool,
    directory: Path,
) -> None:
    """Measure the workloads, show the tables, write the results."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    run = _measure(console, only, peers, rounds, seconds, calm)
    if not run.readings:
        raise TurnFailed("nothing was measured: see what was left out above")
    figures = judge.figures(run.readings)
    remarks = report.notes(figures, run.readings, run.brake)
    show(report.sheets(figures, run.titles), remarks, _WIDTH)
    for path in results_of_a_run.write(run, directory):
        console.print(f"written: {path}", highlight=False)


def _measure(
    console: Console, only: tuple[str, ...], peers: tuple[str, ...], rounds: int, seconds: float, calm: bool
) -> results_of_a_run.Run:
    workloads = [workload for workload in WORKLOADS if workload.name in only]
    here, gaps = turns.present([peer for peer in PEERS if peer.name in peers], workloads)
    for gap in gaps:
        console.print(f"left out: {gap}", style="yellow", highlight=False, soft_wrap=True)

    async def work() -> list[Reading]:
        return await turns.take(
            here,
            workloads,
            rounds=rounds,
            seconds=seconds,
            calm=calm,
            tell=lambda reading: _tell(console, reading),
        )

    versions = results_of_a_run.versions_of(here)
    readings = trio.run(until_terminated, work)
    return results_of_a_run.Run(
        occasion=Occasion(rounds=rounds, seconds=seconds),
        peers=here,
        workloads=workloads,
        gaps=gaps,
        readings=readings,
        versions=versions,
    )


def refuse_what_is_missing() -> None:
    """Stop when the bench cannot run here at all.

    Raises:
        TooFewCpus: There is only one.
        TurnFailed: No root, or a tool is missing; with the command that installs it.
    """
    place(os.sched_getaffinity(0), "share")
    if os.geteuid() != 0:
        raise TurnFailed("the bench makes network namespaces: need root - fix: run as root")
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise TurnFailed(f"not installed: {' '.join(missing)} - fix: apt-get install {' '.join(missing)}")


def _tell(console: Console, reading: Reading) -> None:
    where = f"round {reading.round} {reading.workload:<19}{reading.peer:<16}"
    if reading.measured is None:
        console.print(f"{where}failed: {reading.failure}", style="red", highlight=False, soft_wrap=True)
        return
    values = reading.measured.values
    shown = ", ".join(
        f"{metric.title} {metric.show(values[metric.key])}"
        for metric in metrics_of(reading.workload)
        if metric.key in values
    )
    share = reading.measured.cpu
    cpu = ""
    if share is not None:
        cpu = f"; worker had work {share.demand:.0%}, ran {share.worker_run:.0%}"
        cpu += f"; generators {share.generator_cpus:.0%}; strangers {share.strangers:.0%}"
    console.print(f"{where}{shown}{cpu}", highlight=False, soft_wrap=True)
