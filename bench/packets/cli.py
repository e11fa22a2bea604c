"""The command line: ``python -m bench.packets``. ``make bench`` runs all of it after the rest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio
from rich.console import Console

from bench import options
from bench.files import Occasion
from bench.interrupting import until_terminated
from bench.packets import results as results_of_a_run
from bench.packets import tables, turns
from bench.packets.carriers import CARRIERS, Carrier
from bench.packets.droppers import DROPPERS
from bench.packets.figures import figures
from bench.packets.traffic import POINTS, Point
from bench.starting import TurnFailed
from bench.tabulating import show
from marchproxy_core.bpf import requirements
from marchproxy_core.errors import MarchProxyError
from marchproxy_core.host import gather_host_facts

if TYPE_CHECKING:
    from bench.packets.samples import Reading

_TOOLS = {"ethtool": "ethtool", "unshare": "util-linux", "taskset": "util-linux"}
_WIDTH = 190
ALL = (*CARRIERS, *DROPPERS)
"""What can be measured, the reference of each kind last."""


@click.command(context_settings={"show_default": True})
@click.option("--carriers", default=",".join(one.name for one in ALL), help="What carries or drops them.")
@click.option("--protocols", default="udp,tcp", help="Protocols.")
@click.option("--flows", type=int, help="Only points with so many flows.")
@click.option("--services", type=int, help="Only points with so many services.")
@click.option(
    "--prefixes", type=int, help="Only points with so many blocked prefixes; 0: where packets come through."
)
@click.option("--rounds", type=click.IntRange(1), default=5, help="Turns of each carrier at each point.")
@click.option("--seconds", type=click.FloatRange(0.05), default=1.0, help="How long a turn counts.")
@options.results("all points")
def main(
    carriers: str,
    protocols: str,
    flows: int | None,
    services: int | None,
    prefixes: int | None,
    rounds: int,
    seconds: float,
    results: Path | None,
) -> None:
    """Measure packets a second on one core, in turns, in network namespaces; needs root."""
    points = [
        point
        for point in POINTS
        if point.protocol in protocols.split(",")
        and flows in (None, point.flows)
        and services in (None, point.services)
        and prefixes in (None, point.prefixes)
    ]
    chosen = [one for one in ALL if one.name in carriers.split(",")]
    if not any(one.takes(point) for one in chosen for point in points):
        raise click.BadParameter("no such carriers or points: see --help and bench/packets/traffic.py")
    whole = len(points) == len(POINTS) and len(chosen) == len(ALL)
    try:
        run(chosen, points, rounds, seconds, options.directory_of(results, whole=whole))
    except MarchProxyError as error:
        raise click.ClickException(str(error)) from error


def run(
    chosen: Sequence[Carrier], points: Sequence[Point], rounds: int, seconds: float, directory: Path
) -> None:
    """Measure, show the tables, and write the results into a directory.

    Raises:
        MarchProxyError: It cannot run here at all; says why.
    """
    console = Console(stderr=True)
    refuse_what_is_missing()
    gaps = {one.name: gap for one in chosen if (gap := one.missing()) is not None}
    for gap in gaps.values():
        console.print(f"left out: {gap}", style="yellow", highlight=False, soft_wrap=True)
    here = [one for one in chosen if one.name not in gaps]
    cpu = max(os.sched_getaffinity(0))

    async def work() -> list[Reading]:
        return await turns.take(
            here,
            points,
            rounds=rounds,
            seconds=seconds,
            cpu=cpu,
            tell=lambda reading: _tell(console, reading),
        )

    readings = trio.run(until_terminated, work)
    made, titles = figures(readings), {one.name: one.title for one in ALL}
    show(tables.sheets(made, titles), tables.notes(made, titles), _WIDTH)
    occasion = Occasion(rounds=rounds, seconds=seconds)
    result = results_of_a_run.Run(
        occasion=occasion, gaps=tuple(gaps.values()), readings=readings, titles=titles
    )
    for path in results_of_a_run.write(result, directory):
        console.print(f"written: {path}", highlight=False)


def refuse_what_is_missing() -> None:
    """Stop when this cannot run here.

    Raises:
        TurnFailed: No root, a tool is missing, or what BPF needs; with what helps.
    """
    if os.geteuid() != 0:
        raise TurnFailed("the bench makes network namespaces: need root - fix: run as root")
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise TurnFailed(f"not installed: {' '.join(missing)} - fix: apt-get install {' '.join(missing)}")
    unmet = [need for need in requirements(gather_host_facts()) if need.met is False]
    if unmet:
        raise TurnFailed("; ".join(f"need {one.need}, have {one.have} - fix: {one.fix}" for one in unmet))


def _tell(console: Console, reading: Reading) -> None:
    where = f"round {reading.round} {reading.carrier:<10}{reading.point!s:<36}"
    sample = reading.sample
    if sample is None:
        console.print(f"{where}failed: {reading.failure}", style="red", highlight=False, soft_wrap=True)
        return
    shown = f"{sample.packets_s / 1e6:.2f} Mpackets/s, offered {sample.offered / sample.seconds / 1e6:.2f}"
    timed = "" if sample.program_ns is None else f", {sample.program_ns:.0f} ns in the program"
    refusal = f"; {sample.refusal}" if sample.refusal else ""
    console.print(f"{where}{shown}, {sample.loss:.0%} lost{timed}{refusal}", highlight=False, soft_wrap=True)
