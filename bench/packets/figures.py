"""What the readings are worth: medians, ratios, targets. Pure.

A figure counts unless its samples were refused (samples.py). Of one that was a bound is left: frames that were lost
behind the ring cost the core something, and are not counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from bench.packets.traffic import Point

if TYPE_CHECKING:
    from bench.packets.samples import Reading

REFERENCES = ("nftables", "redirect")
"""What ratios are to, where packets come through."""
BARE_DROP = "drop"
"""What they are to where all is dropped."""
RATIO_TARGETS = {("xdp", "nftables"): 4.0, ("xdp", "redirect"): 0.8, ("door_xdp", BARE_DROP): 0.95}
"""The least ratio that is to be reached, by carrier and reference."""
ENGINES = frozenset({"tc", "xdp", "door_tc", "door_xdp"})
FLAT_FLOWS = 1.3
"""The most that a packet may cost with 60,000 flows, by its cost with one."""
FLAT_SERVICES = 1.2
"""The same with 1,000 services, by its cost with one and as many flows."""


@attrs.frozen(kw_only=True)
class Figure:
    """One carrier at one point over all rounds.

    Args:
        carrier: Whose.
        point: What was under way.
        rates: Packets a second on one core, one for each round that did not fail.
        offered_s: Median of what was offered a second.
        loss: Median share of it that did not come through.
        refused: Why the figure says nothing about the carrier; None: it is printed.
        program_ns: Mean time of the program for one packet, measured apart; None where there is none.
        failures: What went wrong in the rounds that failed.
    """

    carrier: str
    point: Point
    rates: tuple[float, ...] = ()
    offered_s: float = 0.0
    loss: float = 0.0
    refused: str | None = None
    program_ns: float | None = None
    failures: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)

    @property
    def cost_ns(self) -> float:
        """What one packet takes of the core, nanoseconds."""
        return 1e9 / self.rate

    @property
    def stands(self) -> bool:
        """Whether there is a figure, and it was not refused."""
        return bool(self.rates) and self.refused is None


@attrs.frozen
class Compared:
    """A value, whether it is only a bound from below, and whether a target is met by it; None: undecided."""

    value: float
    is_bound: bool = False
    target: float | None = None
    met: bool | None = None

    def __str__(self) -> str:
        shown = f"{'>= ' if self.is_bound else ''}{self.value:.2f}"
        if self.target is None:
            return shown
        return f"{shown} {'undecided' if self.met is None else 'reached' if self.met else 'missed'}"


def figures(readings: Sequence[Reading]) -> tuple[Figure, ...]:
    """Return all figures of a run, by point, then in the order of the carriers' first turns."""
    carriers = tuple(dict.fromkeys(reading.carrier for reading in readings))
    points = tuple(dict.fromkeys(reading.point for reading in readings))
    return tuple(
        found
        for point in points
        for carrier in carriers
        if (found := _figure(carrier, point, readings)) is not None
    )


def ratio(figure: Figure, reference: str, among: Sequence[Figure]) -> Compared | None:
    """Compare a figure's rate with that of a reference at the same point; None where either is missing or refused."""
    base = _find(reference, figure.point, among)
    if base is None or not figure.rates or figure.carrier == reference:
        return None
    value, target = figure.rate / base.rate, RATIO_TARGETS.get((figure.carrier, reference))
    if figure.refused is None:
        return Compared(value, target=target, met=None if target is None else value >= target)
    return Compared(value, is_bound=True, target=target, met=True if target and value >= target else None)


def growth(figure: Figure, among: Sequence[Figure]) -> Compared | None:
    """Compare what a packet costs of the core with its cost at the point that is next to it and smaller.

    That is one flow where there are more, one service with as many flows where there are more services, and one prefix
    where more are blocked; for the last there is no target.
    """
    point = figure.point
    several = point.services > 1
    small = attrs.evolve(point, services=1)
    if not several:
        small = attrs.evolve(point, flows=1, prefixes=min(point.prefixes, 1))
    base = _find(figure.carrier, small, among)
    if small == point or base is None or not figure.stands:
        return None
    value = figure.cost_ns / base.cost_ns
    target = (FLAT_SERVICES if several else FLAT_FLOWS) if _is_to_be_flat(figure) else None
    return Compared(value, target=target, met=None if target is None else value <= target)


def _is_to_be_flat(figure: Figure) -> bool:
    return figure.carrier in ENGINES and not figure.point.prefixes


def _find(carrier: str, point: Point, among: Sequence[Figure]) -> Figure | None:
    """Return the figure of that carrier at that point, if it stands."""
    return next((one for one in among if one.carrier == carrier and one.point == point and one.stands), None)


def _figure(carrier: str, point: Point, readings: Sequence[Reading]) -> Figure | None:
    own = [reading for reading in readings if reading.carrier == carrier and reading.point == point]
    counted = [one.sample for one in own if one.sample is not None and not one.is_profile]
    profiles = [one.sample.program_ns for one in own if one.sample is not None and one.is_profile]
    failures = tuple(reading.failure for reading in own if reading.failure is not None)
    if not counted:
        return Figure(carrier=carrier, point=point, failures=failures) if failures else None
    refusals = [sample.refusal for sample in counted if sample.refusal is not None]
    kept = [sample for sample in counted if sample.refusal is None]
    refused = refusals[0] if len(refusals) * 2 >= len(counted) and refusals else None
    meant = counted if refused else kept
    return Figure(
        carrier=carrier,
        point=point,
        rates=tuple(sample.packets_s for sample in meant),
        offered_s=statistics.median(sample.offered / sample.seconds for sample in meant),
        loss=statistics.median(sample.loss for sample in meant),
        refused=refused,
        program_ns=next((ns for ns in profiles if ns is not None), None),
        failures=failures,
    )
