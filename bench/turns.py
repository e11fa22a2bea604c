"""Measuring in turns: in each round every workload, in each workload every peer, so that noise hits all alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from bench import cpu
from bench.placing import place
from bench.readings import Gap, Measured, Reading
from bench.stage import set_up
from bench.starting import flat
from marchproxy_core.errors import MarchProxyError

if TYPE_CHECKING:
    from bench.peers import Peer
    from bench.workloads import Workload

_TURN_S = 120.0
_QUIET_FOR_S = 0.3
_QUIET_WITHIN_S = 8.0
_REPEATS = 2
_PATIENCE_S = 180.0


def present(peers: Sequence[Peer], workloads: Sequence[Workload]) -> tuple[list[Peer], list[Gap]]:
    """Return the peers that are installed here, and all that is left out and why."""
    gaps = [(peer, peer.missing()) for peer in peers]
    here = [peer for peer, gap in gaps if gap is None]
    cannot = [
        Gap(peer=peer.name, workload=workload.name, reason=reason)
        for peer in here
        for workload in workloads
        if (reason := workload.lacks(peer)) is not None
    ]
    return here, [gap for _, gap in gaps if gap is not None] + cannot


async def take(
    peers: Sequence[Peer],
    workloads: Sequence[Workload],
    *,
    rounds: int,
    seconds: float,
    calm: bool,
    tell: Callable[[Reading], None],
) -> list[Reading]:
    """Measure everything and return the readings in the order in which they were taken.

    Args:
        peers: Those that are installed.
        workloads: What to measure.
        rounds: How many turns each has.
        seconds: How long a turn's generator runs.
        calm: Whether to wait for a quiet machine before a turn, and to repeat a disturbed one; for three minutes in
            the whole run at most.
        tell: Called with each reading at once.
    """
    patience = _Patience(_PATIENCE_S if calm else 0.0)
    readings = []
    for round_ in range(1, rounds + 1):
        for workload in workloads:
            for peer in peers:
                if workload.takes(peer):
                    reading = await _calm_turn(peer, workload, round_, seconds, patience)
                    readings.append(reading)
                    tell(reading)
    return readings


@attrs.define
class _Patience:
    """How much time a run may still lose to waiting for a quiet machine and to repeating turns, in seconds."""

    left_s: float

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Take what happens inside from what is left."""
        began = trio.current_time()
        yield
        self.left_s -= trio.current_time() - began


async def _calm_turn(
    peer: Peer, workload: Workload, round_: int, seconds: float, patience: _Patience
) -> Reading:
    """Measure one peer once; again, up to twice, when strangers used the CPUs meanwhile. Keeps the calmest."""
    found: list[tuple[float, Reading]] = []
    with patience.spent():
        await _until_quiet(min(_QUIET_WITHIN_S, patience.left_s))
    while True:
        reading = await _turn(peer, workload, round_, seconds)
        share = reading.measured.cpu if reading.measured is not None else None
        if share is None or not share.disturbed:
            return reading
        found.append((share.strangers, reading))
        if len(found) > _REPEATS or patience.left_s <= 0:
            return min(found, key=lambda one: one[0])[1]
        with patience.spent():
            await _until_quiet(min(_QUIET_WITHIN_S, patience.left_s))
        patience.left_s -= seconds


async def _turn(peer: Peer, workload: Workload, round_: int, seconds: float) -> Reading:
    measured: Measured | None = None
    failure: str | None = f"the turn did not end within {_TURN_S + seconds:g} s"
    try:
        with trio.move_on_after(_TURN_S + seconds):
            async with set_up(
                peer,
                protocol=workload.protocol,
                port=workload.port,
                server=workload.server,
                http=workload.http,
                cpus=place(os.sched_getaffinity(0), workload.when_tight, workload.brake),
            ) as stage:
                measured = await workload.measure(stage, seconds)
                await stage.confirm()
            failure = None
    except* MarchProxyError as failed:
        failure = "; ".join(flat(failed))
    return Reading(round=round_, workload=workload.name, peer=peer.name, measured=measured, failure=failure)


async def _until_quiet(within_s: float) -> None:
    """Wait until strangers leave the CPUs alone, but not for long: other engineers' machines are never quiet."""
    usable = frozenset(os.sched_getaffinity(0))
    with trio.move_on_after(max(0.0, within_s)):
        quiet = False
        while not quiet:
            first = cpu.look(None)
            await trio.sleep(_QUIET_FOR_S)
            share = cpu.between(first, cpu.look(None), proxy_cpus=usable, generator_cpus=usable)
            quiet = not share.disturbed
