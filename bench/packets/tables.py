"""The tables: one for each protocol, on the terminal and in Markdown, made of the same cells. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from rich.table import Table

from bench.packets.figures import FLAT_FLOWS, FLAT_SERVICES, RATIO_TARGETS, Figure, growth, ratio

HEAD = (
    "flows",
    "services",
    "through",
    "Mpackets/s on one core",
    "min - max",
    "ratio to nftables",
    "ratio to bare redirect",
    "ns of the core",
    "ns of them in the program",
    "cost by one flow, service",
    "offered, M/s",
    "lost",
)
_TEXT = ("through", "min - max")


def heading(protocol: str) -> str:
    """Return a table's title, with its targets."""
    nftables, bare = (RATIO_TARGETS["xdp", reference] for reference in ("nftables", "redirect"))
    return (
        f"{protocol.upper()}, 60-byte frames (targets: XDP >= {nftables:g} x nftables and >= {bare:g} x the bare "
        f"redirect; cost <= {FLAT_FLOWS:g} x with 60,000 flows, <= {FLAT_SERVICES:g} x with 1,000 services)"
    )


def tables(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return each protocol's heading and rows, the head among them.

    Args:
        figures: Of one run.
        titles: What carriers are called, by name.
    """
    found = []
    for protocol in dict.fromkeys(figure.point.protocol for figure in figures):
        own = [figure for figure in figures if figure.point.protocol == protocol]
        rows = [cells(figure, titles[figure.carrier], own) for figure in own]
        found.append((heading(protocol), [HEAD, *rows]))
    return found


def cells(figure: Figure, title: str, among: Sequence[Figure]) -> tuple[str, ...]:
    """Return one row, as many cells as ``HEAD`` has."""
    begin = (f"{figure.point.flows:,}", f"{figure.point.services:,}", title)
    blank = ("",) * (len(HEAD) - len(begin) - 2)
    if not figure.rates:
        return (*begin, "failed", "see below", *blank)
    ratios = tuple(_shown(ratio(figure, reference, among)) for reference in ("nftables", "redirect"))
    ends = (f"{figure.offered_s / 1e6:.2f}", f"{figure.loss:.0%}")
    program = "" if figure.program_ns is None else f"{figure.program_ns:.0f}"
    if figure.refused is not None:
        why = figure.refused.partition(": ")[2] or figure.refused
        return (*begin, "generator-bound", why, *ratios, "", program, "", *ends)
    spread = f"{min(figure.rates) / 1e6:.2f} - {max(figure.rates) / 1e6:.2f}"
    failed = f" ({len(figure.failures)} failed)" if figure.failures else ""
    cost = (f"{figure.cost_ns:.0f}", program, _shown(growth(figure, among)))
    return (*begin, f"{figure.rate / 1e6:.2f}{failed}", spread, *ratios, *cost, *ends)


def notes(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[str]:
    """Return what failed."""
    return [
        f"Failed: {titles[figure.carrier]}, {figure.point}: {why}"
        for figure in figures
        for why in dict.fromkeys(figure.failures)
    ]


def rich_tables(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[Table]:
    """Return the tables for a terminal."""
    made = []
    for title, rows in tables(figures, titles):
        table = Table(title=title, title_justify="left")
        for name in rows[0]:
            table.add_column(name, justify="left" if name in _TEXT else "right")
        for before, row in itertools.pairwise(rows):
            if before[:2] != row[:2] and before is not HEAD:
                table.add_section()
            table.add_row(*row)
        made.append(table)
    return made


def markdown(figures: Sequence[Figure], titles: Mapping[str, str]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for title, rows in tables(figures, titles):
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        rule = "|" + "|".join("---" if name in _TEXT else "--:" for name in rows[0]) + "|"
        parts.append("\n".join([f"## {title}", "", lines[0], rule, *lines[1:]]))
    return "\n\n".join(parts)


def _shown(compared: object) -> str:
    return "" if compared is None else str(compared)
