"""The tables, one for each protocol, and what must be said of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.packets.figures import FLAT_FLOWS, FLAT_SERVICES, RATIO_TARGETS, Figure, growth, ratio
from bench.tabulating import Sheet

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
_TEXT = frozenset({"through", "min - max"})


def heading(protocol: str) -> str:
    """Return a table's title, with its targets."""
    nftables, bare = (RATIO_TARGETS["xdp", reference] for reference in ("nftables", "redirect"))
    return (
        f"{protocol.upper()}, 60-byte frames (targets: XDP >= {nftables:g} x nftables and >= {bare:g} x the bare "
        f"redirect; cost <= {FLAT_FLOWS:g} x with 60,000 flows, <= {FLAT_SERVICES:g} x with 1,000 services)"
    )


def sheets(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[Sheet]:
    """Return each protocol's table.

    Args:
        figures: Of one run.
        titles: What carriers are called, by name.
    """
    found = []
    for protocol in dict.fromkeys(figure.point.protocol for figure in figures):
        own = [figure for figure in figures if figure.point.protocol == protocol]
        rows = [cells(figure, titles[figure.carrier], own) for figure in own]
        found.append(Sheet(title=heading(protocol), head=HEAD, rows=rows, text=_TEXT, grouped_by=2))
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


def _shown(compared: object) -> str:
    return "" if compared is None else str(compared)
