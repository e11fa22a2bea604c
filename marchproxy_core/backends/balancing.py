"""Which backend a new connection or flow goes to. Decides from views and counts; no I/O, no clock, no tier.

A balancer lives in one worker and is made anew when the views change. It is on the path of every new
connection.
"""

from __future__ import annotations

import itertools
import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Protocol, final

import attrs

from marchproxy_core.backends.maglev import cached_table, maglev_slot, table_size
from marchproxy_core.services import Balance

if TYPE_CHECKING:
    from marchproxy_core.model import BackendView

MAX_CYCLE = 4096
"""Longest precomputed cycle of turns; weights that do not reduce below it are worked out turn by turn."""
_MAX_CYCLE_WORK = 1 << 16


class Balancer(Protocol):
    """Picks backends of one service, by index into the views that it was made from."""

    def pick(self, active: Callable[[int], int], key: bytes | None, tried: Container[int] = ()) -> int | None:
        """Choose a backend for one new connection.

        Args:
            active: Open connections of the backend at an index, over all workers.
            key: What keeps a client at its backend, its packed address as a rule; only Maglev looks at it.
            tried: Indexes that this connection has tried in vain.

        Returns:
            An index, or None when every backend that may be used was tried or none has a weight.
        """
        ...


def make_balancer(
    balance: Balance, backends: Sequence[BackendView], *, start: int = 0, random: Random | None = None
) -> Balancer:
    """Make a balancer over those backends that take new connections.

    When none does, all that have a weight are used: a wrong health check must not take down what still works.

    Args:
        balance: How to choose.
        backends: All of the service's backends, in its order.
        start: Turn to begin with; give each worker its own index, so that they do not all begin at one
            backend.
        random: Source of the draws of ``Balance.RANDOM``; its own, seeded by the system, when None.
    """
    weights = usable_weights(backends)
    if balance is Balance.LEAST_CONNECTIONS:
        return LeastConnections(weights, start)
    if balance is Balance.RANDOM:
        return RandomOfTwo(weights, random or Random())
    if balance is Balance.MAGLEV:
        return Maglev([str(view.backend.endpoint).encode() for view in backends], weights, start)
    return make_round_robin(weights, start)


def usable_weights(backends: Sequence[BackendView]) -> tuple[int, ...]:
    """Return each backend's weight, 0 for those that get nothing new at the moment."""
    taking = tuple(view.backend.weight if view.takes_new else 0 for view in backends)
    return taking if any(taking) else tuple(view.backend.weight for view in backends)


def make_round_robin(weights: Sequence[int], start: int = 0) -> Balancer:
    """Make a weighted round robin: exact shares over each cycle, evenly spread within it."""
    divisor = math.gcd(*weights) or 1
    reduced = tuple(weight // divisor for weight in weights)
    even = max(reduced, default=0) <= 1
    cycle = sum(reduced)
    if even or (cycle <= MAX_CYCLE and cycle * len(reduced) <= _MAX_CYCLE_WORK):
        return CyclicRoundRobin(_cycle_of(reduced), start)
    return SmoothRoundRobin(SmoothTurns(reduced), start)


@final
class SmoothTurns:
    """Smooth weighted turns: each turn adds every weight, serves the richest, and takes the total from it.

    Over as many turns as the weights' sum each index is served exactly its weight's number of times, and no
    index waits longer than its share asks for.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = tuple(weights)
        self._credit = [0] * len(weights)
        self.indexes = tuple(index for index, weight in enumerate(weights) if weight > 0)

    def next(self, among: Iterable[int] | None = None) -> int | None:
        """Serve one of ``among`` (indexes with a weight; all of them when None); None when there is none."""
        credit, weights = self._credit, self._weights
        total, best = 0, -1
        for index in self.indexes if among is None else among:
            weight = weights[index]
            credit[index] += weight
            total += weight
            if best < 0 or credit[index] > credit[best]:
                best = index
        if best < 0:
            return None
        credit[best] -= total
        return best


@lru_cache(maxsize=64)
def _cycle_of(weights: tuple[int, ...]) -> array[int]:
    turns = SmoothTurns(weights)
    if max(weights, default=0) <= 1:
        return array("I", turns.indexes)
    picks = (turns.next() for _ in range(sum(weights)))
    return array("I", (pick for pick in picks if pick is not None))


@final
class CyclicRoundRobin:
    """Weighted round robin from a cycle worked out beforehand: a pick is one step of an iterator."""

    def __init__(self, cycle: Sequence[int], start: int) -> None:
        self._length = len(cycle)
        begin = start % self._length if self._length else 0
        self._turns: Iterator[int] = itertools.cycle([*cycle[begin:], *cycle[:begin]])

    def pick(self, active: Callable[[int], int], key: bytes | None, tried: Container[int] = ()) -> int | None:
        """See :meth:`Balancer.pick`. Turns of backends already tried are passed over."""
        for index in itertools.islice(self._turns, self._length):
            if not tried or index not in tried:
                return index
        return None


@final
class SmoothRoundRobin:
    """Weighted round robin turn by turn, for weights without a short cycle: a step per backend."""

    def __init__(self, turns: SmoothTurns, start: int) -> None:
        self._turns = turns
        for _ in range(start % max(len(turns.indexes), 1)):
            turns.next()

    def pick(self, active: Callable[[int], int], key: bytes | None, tried: Container[int] = ()) -> int | None:
        """See :meth:`Balancer.pick`."""
        if not tried:
            return self._turns.next()
        return self._turns.next([index for index in self._turns.indexes if index not in tried])


@final
class LeastConnections:
    """The backend with the fewest open connections for its weight; among equals, weighted round robin."""

    def __init__(self, weights: Sequence[int], start: int) -> None:
        self._weights = tuple(weights)
        self._turns = SmoothTurns(weights)
        for _ in range(start % max(len(self._turns.indexes), 1)):
            self._turns.next()

    def pick(self, active: Callable[[int], int], key: bytes | None, tried: Container[int] = ()) -> int | None:
        """See :meth:`Balancer.pick`."""
        least = math.inf
        tied: list[int] = []
        for index in self._turns.indexes:
            if index in tried:
                continue
            load = active(index) / self._weights[index]
            if load < least:
                least = load
                tied = [index]
            elif load == least:
                tied.append(index)
        return tied[0] if len(tied) == 1 else self._turns.next(tied)


@final
class RandomOfTwo:
    """Two different backends are drawn by weight; the less loaded one, for its weight, is taken.

    Needs no agreement between workers, yet the fullest backend stays within a constant of the average
    (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). Of two equally loaded the
    first drawn is taken.
    """

    def __init__(self, weights: Sequence[int], random: Random) -> None:
        self._urn = _Urn.of((index, weight) for index, weight in enumerate(weights) if weight > 0)
        self._random = random.random

    def pick(self, active: Callable[[int], int], key: bytes | None, tried: Container[int] = ()) -> int | None:
        """See :meth:`Balancer.pick`."""
        urn = self._urn.without(tried) if tried else self._urn
        if len(urn.indexes) < 2:
            return urn.indexes[0] if urn.indexes else None
        one = urn.draw(self._random())
        two = urn.draw(self._random(), apart_from=one)
        load_one = active(urn.indexes[one]) / urn.weight(one)
        load_two = active(urn.indexes[two]) / urn.weight(two)
        return urn.indexes[two if load_two < load_one else one]


@final
@attrs.frozen
class _Urn:
    """Indexes to draw by weight; ``ends[i]`` is the sum of the weights up to and with the i-th."""

    indexes: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, weighted: Iterable[tuple[int, int]]) -> _Urn:
        pairs = tuple(weighted)
        return cls(
            tuple(index for index, _ in pairs), tuple(itertools.accumulate(weight for _, weight in pairs))
        )

    def weight(self, at: int) -> int:
        return self.ends[at] - (self.ends[at - 1] if at else 0)

    def without(self, tried: Container[int]) -> _Urn:
        return _Urn.of(
            (index, self.weight(at)) for at, index in enumerate(self.indexes) if index not in tried
        )

    def draw(self, fraction: float, apart_from: int | None = None) -> int:
        """Return a position for a fraction in [0, 1); as if ``apart_from`` were not in the urn."""
        if apart_from is None:
            return bisect_right(self.ends, int(fraction * self.ends[-1]))
        gap = self.weight(apart_from)
        point = int(fraction * (self.ends[-1] - gap))
        if point >= self.ends[apart_from] - gap:
            point += gap
        return bisect_right(self.ends, point)


@final
class Maglev:
    """The backend in the key's slot of a Maglev table; without a key, weighted round robin."""

    def __init__(self, keys: Sequence[bytes], weights: Sequence[int], start: int) -> None:
        self._keyless = make_round_robin(weights, start)
        size = table_size(len(keys))
        self._table = cached_table(tuple(keys), tuple(weights), size) if any(weights) else array("H")

    def pick(self, active: Callable[[int], int], key: bytes | None, tried: Container[int] = ()) -> int | None:
        """See :meth:`Balancer.pick`. After a backend that was tried, the slots that follow name the next."""
        if key is None:
            return self._keyless.pick(active, key, tried)
        table = self._table
        if not table:
            return None
        slot = maglev_slot(key, len(table))
        if table[slot] not in tried:
            return table[slot]
        following = itertools.chain(range(slot + 1, len(table)), range(slot))
        return next((table[at] for at in following if table[at] not in tried), None)
