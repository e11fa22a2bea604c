"""Options that more than one bench's command line has, and where a run's results go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])
_RESULTS = Path(__file__).parent / "results"

calm = click.option(
    "--calm/--no-calm",
    default=True,
    help="Wait for a quiet machine before each turn, and repeat disturbed ones.",
)


def results(whole: str) -> Callable[[Command], Command]:
    """Return the option that names the directory of the results.

    Args:
        whole: What ``--help`` calls the run that writes into bench/results itself.
    """
    return click.option(
        "--results",
        type=click.Path(file_okay=False, path_type=Path),
        help=f"Where JSON, tables and plot go.  [default: bench/results for {whole}, else bench/results/partial]",
    )


def directory_of(chosen: Path | None, *, whole: bool) -> Path:
    """Return where the results go.

    Args:
        chosen: What the command line says; None: nothing.
        whole: Whether all is measured; a part of it must not take the place of the whole.
    """
    return chosen or (_RESULTS if whole else _RESULTS / "partial")
