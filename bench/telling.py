"""What a run says on the terminal as it goes, and the command line's lists of names; for more than one bench."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from bench.placing import place
from bench.starting import TurnFailed

if TYPE_CHECKING:
    from rich.console import Console

    from bench.metrics import Metric
    from bench.readings import Reading


class Names(click.ParamType[tuple[str, ...]]):
    """Names separated by commas, of a fixed choice."""

    name = "names"

    def __init__(self, choice: tuple[str, ...]) -> None:
        self._choice = choice

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Read them; none at all are all of them."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name for name in str(value).split(",") if name))
        for name in names:
            if name not in self._choice:
                self.fail(f"{name!r} is none of {', '.join(self._choice)}", param, ctx)
        return names or self._choice


def refuse_what_is_missing(tools: Mapping[str, str]) -> None:
    """Stop when a bench cannot run here at all.

    Args:
        tools: Programs, and the Debian packages that have them.

    Raises:
        TooFewCpus: There is only one.
        TurnFailed: No root, or a tool is missing; with the command that installs it.
    """
    place(os.sched_getaffinity(0), "share")
    if os.geteuid() != 0:
        raise TurnFailed("the bench makes network namespaces: need root - fix: run as root")
    missing = sorted({package for tool, package in tools.items() if shutil.which(tool) is None})
    if missing:
        raise TurnFailed(f"not installed: {' '.join(missing)} - fix: apt-get install {' '.join(missing)}")


def tell(console: Console, reading: Reading, metrics: Iterable[Metric]) -> None:
    """Print what a turn gave.

    Args:
        console: Where.
        reading: What it gave.
        metrics: Those of its workload.
    """
    where = f"round {reading.round} {reading.workload:<19}{reading.peer:<23}"
    if reading.measured is None:
        console.print(
            f"{where}failed: {reading.failure}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        return
    values = reading.measured.values
    shown = ", ".join(
        f"{metric.title} {metric.show(values[metric.key])}" for metric in metrics if metric.key in values
    )
    share = reading.measured.cpu
    cpu = ""
    if share is not None:
        cpu = f"; worker had work {share.demand:.0%}, ran {share.worker_run:.0%}"
        cpu += f"; generators {share.generator_cpus:.0%}; strangers {share.strangers:.0%}"
    console.print(f"{where}{shown}{cpu}", highlight=False, markup=False, soft_wrap=True)
