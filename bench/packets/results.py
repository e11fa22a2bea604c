"""What a run leaves behind: JSON with all that was counted, the tables as Markdown, the plot as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from bench import files
from bench.files import Occasion
from bench.packets import chart, tables
from bench.packets.figures import BARE_DROP, Figure, figures, growth, ratio
from bench.packets.samples import Reading
from bench.readings import Gap
from bench.tabulating import markdown

_FORMAT = 3


@attrs.frozen(kw_only=True)
class Run:
    """One run: what was asked for, and what came out."""

    occasion: Occasion
    gaps: Sequence[Gap]
    readings: Sequence[Reading]
    titles: Mapping[str, str]
    """What the carriers are called, by name."""


def write(run: Run, directory: Path) -> list[Path]:
    """Write ``packets.json``, ``packets.md`` and ``packets.svg`` into a directory; return their paths."""
    made = figures(run.readings)
    return files.write(
        directory,
        "packets",
        json_=as_json(run, made),
        md=as_markdown(run, made),
        svg=chart.svg(made, run.titles, run.occasion.caption),
    )


def as_json(run: Run, made: Sequence[Figure]) -> dict[str, object]:
    """Return a run as plain values; refused figures are there too, marked by their reason."""
    return {
        "format": _FORMAT,
        **run.occasion.as_json(),
        "carriers": dict(run.titles),
        "left_out": [attrs.asdict(gap) for gap in run.gaps],
        "figures": [_figure_as_json(figure, made) for figure in made],
        "readings": [attrs.asdict(reading) for reading in run.readings],
    }


def as_markdown(run: Run, made: Sequence[Figure]) -> str:
    """Return the tables with what a reader must know about them."""
    remarks = [*(f"left out: {gap}" for gap in run.gaps), *tables.notes(made, run.titles)]
    sheets = markdown(tables.sheets(made, run.titles))
    return files.page("Packets a second on one core, latest run", run.occasion, remarks, sheets)


def _figure_as_json(figure: Figure, among: Sequence[Figure]) -> dict[str, object]:
    compared = {
        "ratio_to_nftables": ratio(figure, "nftables", among),
        "ratio_to_redirect": ratio(figure, "redirect", among),
        "ratio_to_bare_drop": ratio(figure, BARE_DROP, among),
        "cost_growth": growth(figure, among),
    }
    return {
        **attrs.asdict(figure),
        "packets_s": figure.rate if figure.rates else None,
        "cost_ns": figure.cost_ns if figure.rates else None,
        **{name: attrs.asdict(one) if one is not None else None for name, one in compared.items()},
    }
