"""The command line: ``python -m bench``."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio
from rich.console import Console

from bench import judge, options, report, turns
from bench import results as results_of_a_run
from bench.files import Occasion
from bench.http import cli as http
from bench.interrupting import until_terminated
from bench.metrics import WORKLOADS as WORKLOAD_NAMES
from bench.metrics import metrics_of
from bench.packets import cli as packets
from bench.packets.traffic import POINTS
from bench.peers import PEERS
from bench.starting import TurnFailed
from bench.tabulating import show
from bench.telling import Names, refuse_what_is_missing, tell
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
_FEWEST_ROUNDS = 5
_PEER_NAMES = tuple(peer.name for peer in PEERS)
_PACKETS = "packets"
"""What ``python -m bench.packets`` measures; it has no peers, so it is left out where some are chosen."""
_HTTP = "http"
"""What ``python -m bench.http`` measures; its peers are its own."""
_PARTS = (*WORKLOAD_NAMES, _PACKETS, _HTTP)
_MOST_HTTP_ROUNDS = 3
"""Its rounds are long: a dozen kinds of traffic, with one worker and with two."""
_PACKETS_S = 1.0
_WIDTH = 150


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--only", type=Names(_PARTS), default=",".join(_PARTS), help="Workloads.")
@click.option("--peers", type=Names(_PEER_NAMES), default=",".join(_PEER_NAMES), help="Peers.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Turns of each peer in each workload.")
@click.option("--seconds", type=click.IntRange(1), default=3, help="How long each generator runs in a turn.")
@options.calm
@options.results("a whole run")
def main(
    only: tuple[str, ...], peers: tuple[str, ...], rounds: int, seconds: int, calm: bool, results: Path | None
) -> None:
    """Measure our tiers and their peers side by side, in turns, in network namespaces; needs root."""
    console = Console(stderr=True)
    all_peers = set(peers) == set(_PEER_NAMES)
    whole = all_peers and set(only) == set(_PARTS) and rounds >= _FEWEST_ROUNDS
    directory = options.directory_of(results, whole=whole)
    try:
        refuse_what_is_missing(_TOOLS)
        has_peers = not {_PACKETS, _HTTP}.issuperset(only)
        if has_peers:
            _compare(console, only, peers, rounds, seconds, calm, directory)
        if _PACKETS in only and (all_peers or not has_peers):
            packets.run(packets.ALL, POINTS, rounds, _PACKETS_S, directory)
        if _HTTP in only and (all_peers or not has_peers):
            how = http.How(min(rounds, _MOST_HTTP_ROUNDS), seconds, calm)
            http.run(how=how, directory=directory)
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
            tell=lambda reading: tell(console, reading, metrics_of(reading.workload)),
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
