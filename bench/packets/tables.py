"""The tables, one for each protocol and one for what is dropped, and what must be said of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.packets.figures import (
    BARE_DROP,
    FLAT_FLOWS,
    FLAT_SERVICES,
    RATIO_TARGETS,
    REFERENCES,
    Compared,
    Figure,
    growth,
    ratio,
)
from bench.tabulating import Row, Sheet

_BEFORE = ("Mpackets/s on one core", "min - max")
_BEHIND = ("ns of the core", "ns of them in the program")
HEAD = (
    *("flows", "services", "through", *_BEFORE, "ratio to nftables", "ratio to bare redirect", *_BEHIND),
    *("cost by one flow, service", "offered, M/s", "lost"),
)
DROP_HEAD = (
    *("blocked prefixes", "dropped by", *_BEFORE, "ratio to bare XDP_DROP", *_BEHIND),
    *("cost by one prefix", "offered, M/s", "lost"),
)
_TEXT = frozenset({"through", "dropped by", "min - max"})


def heading(protocol: str) -> str:
    """Return the title of a protocol's table, with its targets."""
    nftables, bare = (RATIO_TARGETS["xdp", reference] for reference in REFERENCES)
    return (
        f"{protocol.upper()}, 60-byte frames (targets: XDP >= {nftables:g} x nftables and >= {bare:g} x the bare "
        f"redirect; cost <= {FLAT_FLOWS:g} x with 60,000 flows, <= {FLAT_SERVICES:g} x with 1,000 services)"
    )


def drop_heading() -> str:
    """Return the title of the table of what is dropped, with its target."""
    target = RATIO_TARGETS["door_xdp", BARE_DROP]
    return f"Dropped at the front door, UDP, 60-byte frames (target: xdp >= {target:g} x a bare XDP_DROP)"


def sheets(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[Sheet]:
    """Return each table.

    Args:
        figures: Of one run.
        titles: What carriers are called, by name.
    """
    found = []
    through = [figure for figure in figures if not figure.point.prefixes]
    for protocol in dict.fromkeys(figure.point.protocol for figure in through):
        own = [figure for figure in through if figure.point.protocol == protocol]
        rows = [cells(figure, titles[figure.carrier], own) for figure in own]
        found.append(Sheet(title=heading(protocol), head=HEAD, rows=rows, text=_TEXT, grouped_by=2))
    dropped = [figure for figure in figures if figure.point.prefixes]
    if dropped:
        rows = [drop_cells(figure, titles[figure.carrier], dropped) for figure in dropped]
        found.append(Sheet(title=drop_heading(), head=DROP_HEAD, rows=rows, text=_TEXT, grouped_by=1))
    return found


def cells(figure: Figure, title: str, among: Sequence[Figure]) -> Row:
    """Return one row, as many cells as ``HEAD`` has."""
    begin = (f"{figure.point.flows:,}", f"{figure.point.services:,}", title)
    return (*begin, *_cells(figure, [ratio(figure, reference, among) for reference in REFERENCES], among))


def drop_cells(figure: Figure, title: str, among: Sequence[Figure]) -> Row:
    """Return one row, as many cells as ``DROP_HEAD`` has."""
    begin = (f"{figure.point.prefixes:,}", title)
    return (*begin, *_cells(figure, [ratio(figure, BARE_DROP, among)], among))


def notes(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[str]:
    """Return what failed."""
    return [
        f"Failed: {titles[figure.carrier]}, {figure.point}: {why}"
        for figure in figures
        for why in dict.fromkeys(figure.failures)
    ]


def _cells(figure: Figure, compared: Sequence[Compared | None], among: Sequence[Figure]) -> Row:
    """Return what stands behind the carrier's title."""
    ratios = tuple(map(_shown, compared))
    if not figure.rates:
        return ("failed", "see below", *("" for _ in (*ratios, *range(5))))
    ends = (f"{figure.offered_s / 1e6:.2f}", f"{figure.loss:.0%}")
    program = "" if figure.program_ns is None else f"{figure.program_ns:.0f}"
    if figure.refused is not None:
        return ("refused", figure.refused, *ratios, "", program, "", *ends)
    spread = f"{min(figure.rates) / 1e6:.2f} - {max(figure.rates) / 1e6:.2f}"
    failed = f" ({len(figure.failures)} failed)" if figure.failures else ""
    cost = (f"{figure.cost_ns:.0f}", program, _shown(growth(figure, among)))
    return (f"{figure.rate / 1e6:.2f}{failed}", spread, *ratios, *cost, *ends)


def _shown(compared: Compared | None) -> str:
    return "" if compared is None else str(compared)
