"""What a build of the engine offers to those who run the packet table on it, and what it counted."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from marchproxy_core.packet import layout
from marchproxy_core.packet.reasons import Reason, Verdict
from marchproxy_core.packet.tables import word
from marchproxy_core.testing.packets.places import FRONT, Interface

if TYPE_CHECKING:
    from marchproxy_core.testing.packets.row import Build
    from marchproxy_core.testing.packets.world import World

FlowFields = Mapping[str, layout.Value]


@attrs.frozen(kw_only=True)
class Result:
    """What became of one frame. Two builds agree when these are equal."""

    verdict: Verdict
    reason: Reason
    service: int
    """Number of the service that it was counted for."""
    frame: bytes = attrs.field(repr=False)


class Refused(Exception):
    """The kernel does not let this frame near a program, so there is nothing to compare."""


class Engine(Protocol):
    """One build, with tables of its own."""

    @property
    def build(self) -> Build:
        """Which one it is."""
        ...

    def begin(self, world: World) -> None:
        """Empty all tables, and fill them."""
        ...

    def rearrange(self, world: World) -> None:
        """Write services, backends and settings; flows and counters stay."""
        ...

    def run(self, frame: bytes, *, via: Interface = FRONT, gso_size: int = 0) -> Result:
        """Give it a frame.

        Raises:
            Refused: The kernel does not take the frame.
        """
        ...

    def pass_time(self, by_ns: int) -> None:
        """Move the clock, where it can be moved."""
        ...

    def tick(self) -> int:
        """Return the present tick of 2^30 ns."""
        ...

    def mark(self, fields: FlowFields) -> None:
        """Write fields of all flows in use."""
        ...

    def find(self, table: str, key: bytes) -> bytes | None:
        """Return an entry of KEYS, FLOWS, LOADS or SETTINGS."""
        ...

    def counters(self) -> bytes:
        """Return the table of counters: for each place the ``struct mp_counters`` of each CPU."""
        ...

    def count(self, table: str) -> int:
        """Return how many entries KEYS or FREE has."""
        ...

    def told(self) -> bytes | None:
        """Return the last ``struct mp_sample`` of a drop since this was asked last; None when there was none."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


def flows_in_use(engine: Engine, places: int) -> Mapping[int, FlowFields]:
    """Return the flows there are, by their places."""
    found = {}
    for place in range(places):
        raw = engine.find("FLOWS", word(place))
        assert raw is not None  # an array has every place
        if raw[_PROTOCOL]:
            found[place] = layout.FLOW.unpack(raw)
    return found


_PROTOCOL = layout.FLOW.offset("protocol")
_COUNTERS = layout.COUNTERS.size
_COUNTED = struct.Struct("<5Q")
"""How ``struct mp_counters`` begins: packets and bytes by side, and flows that were opened."""


@attrs.frozen(kw_only=True)
class Totals:
    """What was counted of all that was forwarded, over all services and CPUs."""

    packets: tuple[int, int]
    """By side."""
    bytes: tuple[int, int]
    opened: int
    """Flows, as the counters have it."""
    charged: int
    """Flows, as the limits have it."""


def totals(engine: Engine) -> Totals:
    """Return what an engine counted so far."""
    raw = engine.counters()
    parts = [_COUNTED.unpack_from(raw, at) for at in range(0, len(raw), _COUNTERS)]
    from_client, from_backend, bytes_in, bytes_out, opened = (
        sum(column) for column in zip(*parts, strict=True)
    )
    load = engine.find("LOADS", word(0))
    assert load is not None  # an array has every place
    charged = layout.LOAD.unpack(load)["opened"]
    assert isinstance(charged, int)
    return Totals(
        packets=(from_client, from_backend), bytes=(bytes_in, bytes_out), opened=opened, charged=charged
    )


_FIRST_REASON = layout.COUNTERS.offset("reasons") // 8


class CounterBook:
    """Tells which counters a frame moved."""

    def __init__(self, engine: Engine, cpus: int) -> None:
        """Begin with what the counters are now.

        Args:
            engine: Whose.
            cpus: How many values there are for each place in the table.
        """
        self._engine = engine
        self._numbers_apart = 2 * cpus
        self._before = engine.counters()

    def told(self) -> tuple[int, Reason]:
        """Return the service and the reason that the last frame was counted for.

        Raises:
            AssertionError: It was not counted exactly once.
        """
        before, self._before = self._before, self._engine.counters()
        moved: list[tuple[int, Reason]] = []
        for at in range(0, len(before), _COUNTERS):
            then, now = before[at : at + _COUNTERS], self._before[at : at + _COUNTERS]
            if then != now:
                number = at // _COUNTERS // self._numbers_apart
                moved += [(number, reason) for reason in _reasons_moved(then, now)]
        if len(moved) != 1:
            raise AssertionError(f"a frame was counted as {moved}, and should be once")
        return moved[0]


def _reasons_moved(before: bytes, now: bytes) -> Iterator[Reason]:
    then, later = (memoryview(each).cast("Q")[_FIRST_REASON:] for each in (before, now))
    for reason, (old, new) in enumerate(zip(then, later, strict=True)):
        if old != new:
            yield from [Reason(reason)] * (new - old)
