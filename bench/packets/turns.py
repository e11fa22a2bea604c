"""Measuring in turns: in each round every point, at each point every carrier, so that noise hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from bench.packets.samples import Reading, Sample
from bench.packets.stage import set_up
from bench.starting import TurnFailed

if TYPE_CHECKING:
    from bench.packets.carriers import Carrier
    from bench.packets.traffic import Point

_TURN_S = 120.0
_TRIES = 3
PROFILE = 0
"""The round in which the kernel times programs."""


async def take(
    carriers: Sequence[Carrier],
    points: Sequence[Point],
    *,
    rounds: int,
    seconds: float,
    cpu: int,
    tell: Callable[[Reading], None],
) -> list[Reading]:
    """Measure everything and return the readings in the order in which they were taken.

    Args:
        carriers: Those that are there.
        points: What to have under way.
        rounds: How many turns each has; one more follows in which programs are timed. One that failed or was refused,
            as on a machine that others use, is tried again, up to twice.
        seconds: How long a turn counts.
        cpu: Where it is measured, by number.
        tell: Called with each reading at once.
    """
    readings = []
    for round_ in (*range(1, rounds + 1), PROFILE):
        for point in points:
            for carrier in carriers:
                if carrier.takes(point) and (round_ != PROFILE or carrier.is_program):
                    reading = await _turn_that_counts(carrier, point, round_, seconds, cpu)
                    readings.append(reading)
                    tell(reading)
    return readings


async def _turn_that_counts(carrier: Carrier, point: Point, round_: int, seconds: float, cpu: int) -> Reading:
    for _ in range(_TRIES - 1):
        reading = await _turn(carrier, point, round_, seconds, cpu)
        if reading.sample is not None and reading.sample.refusal is None:
            return reading
    return await _turn(carrier, point, round_, seconds, cpu)


async def _turn(carrier: Carrier, point: Point, round_: int, seconds: float, cpu: int) -> Reading:
    sample: Sample | None = None
    failure: str | None = f"the turn did not end within {_TURN_S + seconds:g} s"
    try:
        with trio.move_on_after(_TURN_S + seconds):
            async with set_up(carrier, point, cpu=cpu) as stage:
                sample = await stage.measure(seconds, profile=round_ == PROFILE)
            failure = None
    except TurnFailed as failed:
        failure = str(failed)
    return Reading(round=round_, carrier=carrier.name, point=point, sample=sample, failure=failure)
