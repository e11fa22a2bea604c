"""What a run leaves behind: JSON with all that was counted, the tables as Markdown, the plot as SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

from bench.packets import chart, tables
from bench.packets.figures import Figure, figures, growth, ratio
from bench.packets.samples import Reading
from bench.readings import Gap
from bench.results import describe_host

_FORMAT = 1


@attrs.frozen(kw_only=True)
class Run:
    """One run: what was asked for, and what came out."""

    rounds: int
    seconds: float
    gaps: Sequence[Gap]
    readings: Sequence[Reading]
    titles: Mapping[str, str]
    """What the carriers are called, by name."""
    taken: datetime = attrs.field(factory=lambda: datetime.now(UTC))


def write(run: Run, directory: Path) -> list[Path]:
    """Write ``packets.json``, ``packets.md`` and ``packets.svg`` into a directory; return their paths."""
    host, made = describe_host(), figures(run.readings)
    caption = f"{run.taken:%Y-%m-%d}, {run.rounds} rounds of {run.seconds:g} s, {host['cpu']}, Linux {host['kernel']}"
    contents = {
        "json": json.dumps(as_json(run, made, host), indent=1, ensure_ascii=False) + "\n",
        "md": as_markdown(run, made, caption),
        "svg": chart.svg(made, run.titles, caption),
    }
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for ending, content in contents.items():
        path = directory / f"packets.{ending}"
        path.write_text(content, encoding="utf-8")
        paths.append(path)
    return paths


def as_json(run: Run, made: Sequence[Figure], host: Mapping[str, object]) -> dict[str, object]:
    """Return a run as plain values; refused figures are there too, marked by their reason."""
    return {
        "format": _FORMAT,
        "taken": run.taken.isoformat(timespec="seconds"),
        "rounds": run.rounds,
        "seconds": run.seconds,
        "host": dict(host),
        "carriers": dict(run.titles),
        "left_out": [attrs.asdict(gap) for gap in run.gaps],
        "figures": [_figure_as_json(figure, made) for figure in made],
        "readings": [attrs.asdict(reading) for reading in run.readings],
    }


def as_markdown(run: Run, made: Sequence[Figure], caption: str) -> str:
    """Return the tables with what a reader must know about them."""
    lines = ["# Packets a second on one core, latest run", ""]
    lines += [f"{caption}. Written by `make bench`; how to read it: [README](../README.md).", ""]
    lines += [f"- left out: {gap}" for gap in run.gaps]
    lines += [f"- {note}" for note in tables.notes(made, run.titles)]
    return "\n".join([*lines, "", tables.markdown(made, run.titles), ""])


def _figure_as_json(figure: Figure, among: Sequence[Figure]) -> dict[str, object]:
    compared = {
        "ratio_to_nftables": ratio(figure, "nftables", among),
        "ratio_to_redirect": ratio(figure, "redirect", among),
        "cost_growth": growth(figure, among),
    }
    return {
        **attrs.asdict(figure),
        "packets_s": figure.rate if figure.rates else None,
        "cost_ns": figure.cost_ns if figure.rates else None,
        **{name: attrs.asdict(one) if one is not None else None for name, one in compared.items()},
    }
