"""The command line: ``python -m bench.http``. ``make bench`` runs all of it after the rest."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
import trio
from rich.console import Console

from bench import options, turns
from bench.files import Occasion
from bench.http import results as results_of_a_run
from bench.http.metrics import KINDS, metrics_of
from bench.http.peers import PEERS
from bench.http.shape import TWO_WORKERS
from bench.http.workloads import WITH_ONE, WITH_TWO
from bench.interrupting import until_terminated
from bench.results import Run, versions_of
from bench.starting import TurnFailed
from bench.tabulating import show
from bench.telling import Names, refuse_what_is_missing, tell
from marchproxy_core.errors import MarchProxyError

if TYPE_CHECKING:
    from bench.readings import Reading
    from bench.workloads import Workload

_TOOLS = {
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "taskset": "util-linux",
    "nsenter": "util-linux",
}
_FEWEST_ROUNDS = 3
_KINDS = tuple(kind.name for kind in KINDS)
_PEER_NAMES = tuple(peer.name for peer in PEERS)
_WORKERS = ("1", "2")
_WIDTH = 230


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--only", type=Names(_KINDS), default=",".join(_KINDS), help="Kinds of traffic.")
@click.option("--peers", type=Names(_PEER_NAMES), default=",".join(_PEER_NAMES), help="Peers.")
@click.option("--workers", type=Names(_WORKERS), default=",".join(_WORKERS), help="With how many workers.")
@click.option("--rounds", type=click.IntRange(1), default=3, help="Turns of each peer in each workload.")
@click.option("--seconds", type=click.IntRange(1), default=3, help="How long each generator runs in a turn.")
@options.calm
@options.results("a whole run")
def main(
    only: tuple[str, ...],
    peers: tuple[str, ...],
    workers: tuple[str, ...],
    rounds: int,
    seconds: int,
    calm: bool,
    results: Path | None,
) -> None:
    """Measure HTTP through our application tier and its peers side by side, in turns; needs root."""
    whole = (set(only), set(peers), set(workers)) == (set(_KINDS), set(_PEER_NAMES), set(_WORKERS))
    directory = options.directory_of(results, whole=whole and rounds >= _FEWEST_ROUNDS)
    try:
        run(only=only, peers=peers, workers=workers, how=How(rounds, seconds, calm), directory=directory)
    except MarchProxyError as error:
        raise click.ClickException(str(error)) from error


@attrs.frozen
class How:
    """How long and how carefully to measure: turns of each, seconds of a turn, whether to wait for quiet."""

    rounds: int
    seconds: float
    calm: bool


def run(
    *,
    only: tuple[str, ...] = _KINDS,
    peers: tuple[str, ...] = _PEER_NAMES,
    workers: tuple[str, ...] = _WORKERS,
    how: How,
    directory: Path,
) -> None:
    """Measure, show the tables, write the results.

    Raises:
        TurnFailed: No root, something needed is missing, or nothing was measured.
    """
    refuse_what_is_missing(_TOOLS)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    console = Console(stderr=True)
    every = (WITH_ONE if "1" in workers else ()) + (WITH_TWO if "2" in workers else ())
    workloads = [one for one in every if one.name.removesuffix(TWO_WORKERS) in only]
    measured = _measure(console, peers, workloads, how)
    if not measured.readings:
        raise TurnFailed("nothing was measured: see what was left out above")
    figures = results_of_a_run.figures_of(measured)
    show(*results_of_a_run.tables_of(measured, figures), _WIDTH)
    for path in results_of_a_run.write(measured, figures, directory):
        console.print(f"written: {path}", highlight=False)


def _measure(console: Console, peers: tuple[str, ...], workloads: list[Workload], how: How) -> Run:
    here, gaps = turns.present([peer for peer in PEERS if peer.name in peers], workloads)
    for gap in gaps:
        console.print(f"left out: {gap}", style="yellow", highlight=False, soft_wrap=True)

    def told(reading: Reading) -> None:
        tell(console, reading, attrs.astuple(metrics_of(reading.workload), recurse=False))

    async def work() -> list[Reading]:
        return await turns.take(
            here, workloads, rounds=how.rounds, seconds=how.seconds, calm=how.calm, tell=told
        )

    versions = versions_of(here)
    readings = trio.run(until_terminated, work)
    return Run(
        occasion=Occasion(rounds=how.rounds, seconds=how.seconds),
        peers=here,
        workloads=workloads,
        gaps=gaps,
        readings=readings,
        versions=versions,
    )
