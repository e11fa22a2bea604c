"""The tables of the HTTP bench: the targets, then one for each kind of traffic. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.http.metrics import KINDS, Kind, metrics_of
from bench.http.peers import OURS
from bench.http.shape import TWO_WORKERS
from bench.http.targets import outcomes, quotient, rates
from bench.judge import Figure
from bench.tabulating import Row, Sheet

if TYPE_CHECKING:
    from bench.metrics import Metric

_TEXT = frozenset({"peer", "min - max", "workload", "target", "outcome"})
_OURS_BY_IT = "ours by it"
_TARGETS_HEAD = ("workload", "target", "ratio", "outcome")

Found = Mapping[tuple[str, str], Figure]
"""Figures by the metric's key and the peer."""


def sheets(figures: Sequence[Figure], titles: Mapping[str, str]) -> list[Sheet]:
    """Return the tables of a run, without columns that would be empty.

    Args:
        figures: Of one run.
        titles: What peers are called, by name.
    """
    found = {(figure.metric.key, figure.peer): figure for figure in figures}
    told = []
    if any(figure.peer == OURS for figure in figures):
        told.append(_targets(figures, titles))
    for kind in KINDS:
        rows = [row for peer in titles if (row := _row(kind, peer, found, titles)) is not None]
        if rows:
            sheet = Sheet(title=kind.title, head=_head(kind), rows=rows, text=_TEXT)
            told.append(sheet.without_empty_columns())
    return told


def _targets(figures: Sequence[Figure], titles: Mapping[str, str]) -> Sheet:
    rows = []
    kinds = {kind.name: kind.title for kind in KINDS}
    for target, found, said in outcomes(rates(figures)):
        by = "our own" if target.reference == OURS else titles.get(target.reference, target.reference)
        of = f" {kinds[target.by_workload]}" if target.by_workload else ""
        want = f">= {target.ratio:g} x {by}{of}"
        rows.append((kinds[target.workload], want, str(found) if found else "", said))
    return Sheet(title="Targets of our tier", head=_TARGETS_HEAD, rows=rows, text=_TEXT)


def _head(kind: Kind) -> Row:
    one = metrics_of(kind.name)
    titles = tuple(metric.title for metric in (one.p50, one.p99, one.cpu, one.memory))
    two = (f"2 workers: {one.rate.title}", "2 workers: CPU s", f"2 workers: {_OURS_BY_IT}")
    shares = ("worker ran", "waited", "generator CPUs")
    return ("peer", one.rate.title, _OURS_BY_IT, "min - max", *titles, *shares, *two)


def _row(kind: Kind, peer: str, found: Found, titles: Mapping[str, str]) -> Row | None:
    one, two = metrics_of(kind.name), metrics_of(kind.name + TWO_WORKERS)
    rate, second = found.get((one.rate.key, peer)), found.get((two.rate.key, peer))
    if rate is None and second is None:
        return None
    figures = (_cell(found, metric, peer) for metric in (one.p50, one.p99, one.cpu, one.memory))
    return (
        titles[peer],
        _rate(rate),
        _ours(found, one.rate, peer),
        _spread(rate),
        *figures,
        *_shares(rate),
        _rate(second),
        _cell(found, two.cpu, peer),
        _ours(found, two.rate, peer),
    )


def _rate(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if not figure.values:
        return "failed"
    failed = f" ({len(figure.failures)} failed)" if figure.failures else ""
    return "generator-bound" if figure.refused is not None else figure.metric.show(figure.median) + failed


def _spread(figure: Figure | None) -> str:
    """Write the lowest and the highest round, or why there is no figure."""
    if figure is None:
        return ""
    if not figure.values:
        return "see below"
    if figure.refused is not None:
        return figure.refused.partition(": ")[2]
    show = figure.metric.show
    return f"{show(min(figure.values))} - {show(max(figure.values))}"


def _cell(found: Found, metric: Metric, peer: str) -> str:
    figure = found.get((metric.key, peer))
    if figure is None or not figure.values or figure.refused is not None:
        return ""
    return metric.show(figure.median)


def _ours(found: Found, metric: Metric, peer: str) -> str:
    ratio = quotient(found.get((metric.key, OURS)), found.get((metric.key, peer)))
    return "" if ratio is None or peer == OURS else str(ratio)


def _shares(figure: Figure | None) -> tuple[str, str, str]:
    share = figure.cpu if figure is not None else None
    if share is None:
        return "", "", ""
    return f"{share.worker_run:.0%}", f"{share.worker_wait:.0%}", f"{share.generator_cpus:.0%}"
