"""Whether our tier reached what it was to reach. Pure.

A rate that bench/judge.py refused is a bound: that proxy could do at least so much. So the ratio of a refused rate of
ours is a lower bound, that by a refused rate of a peer an upper one; a target beyond the bound stays undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

from bench.http.metrics import TARGETS, Target, metrics_of
from bench.http.peers import OURS

if TYPE_CHECKING:
    from bench.judge import Figure

Sign = Literal["", ">= ", "<= ", "? "]


@attrs.frozen
class Quotient:
    """Our rate by another; ``sign`` says which bound it is, where it is one, ``?`` where both rates are bounds."""

    value: float
    sign: Sign
    is_disturbed: bool

    def __str__(self) -> str:
        return f"{self.sign}{self.value:.2f}"


def rates(figures: Sequence[Figure]) -> dict[tuple[str, str], Figure]:
    """Return the rates of a run by workload and peer."""
    return {
        (figure.metric.workload, figure.peer): figure
        for figure in figures
        if figure.metric.key == metrics_of(figure.metric.workload).rate.key
    }


def quotient(ours: Figure | None, theirs: Figure | None) -> Quotient | None:
    """Return our rate by another; None where either was not measured."""
    if ours is None or theirs is None or not ours.values or not theirs.values or not theirs.median:
        return None
    signs: dict[tuple[bool, bool], Sign] = {
        (False, False): "",
        (True, False): ">= ",
        (False, True): "<= ",
        (True, True): "? ",
    }
    return Quotient(
        ours.median / theirs.median,
        signs[ours.refused is not None, theirs.refused is not None],
        is_disturbed=ours.is_disturbed or theirs.is_disturbed,
    )


def outcome(target: Target, found: Quotient | None) -> str:
    """Return *reached*, *missed*, or why neither can be said."""
    if found is None:
        return "not measured"
    if found.is_disturbed:
        return "undecided, disturbed"
    reached = found.value >= target.ratio
    if found.sign == "? " or found.sign == (">= " if not reached else "<= "):
        return "undecided"
    return "reached" if reached else "missed"


def outcomes(of: Mapping[tuple[str, str], Figure]) -> list[tuple[Target, Quotient | None, str]]:
    """Return each target with what it came to.

    Args:
        of: The rates of a run by workload and peer.
    """
    found = []
    for target in TARGETS:
        theirs = of.get((target.by_workload or target.workload, target.reference))
        by = quotient(of.get((target.workload, OURS)), theirs)
        found.append((target, by, outcome(target, by)))
    return found
