"""Gives several builds the same frames, and compares what they make of them. The first one is the measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, final

from marchproxy_core.packet import layout
from marchproxy_core.packet.tables import word
from marchproxy_core.testing.packets.engine import Engine, FlowFields, Refused, Result, flows_in_use
from marchproxy_core.testing.packets.places import FRONT, Interface
from marchproxy_core.testing.packets.row import Build, Row
from marchproxy_core.testing.packets.running import Mismatch, apply, check_sound, differences

if TYPE_CHECKING:
    from marchproxy_core.testing.packets.world import World

GROUPS = (
    (Build.PLAIN, Build.XDP, Build.TC),
    (Build.PLAIN_PARTIAL, Build.XDP_PARTIAL, Build.XDP_PIECES),
)
"""Builds that must agree about every frame."""
_OF_ITS_OWN = frozenset({"expires", "hop"})
"""Fields of a flow that depend on the clock, or on the kernel's routes."""
_HEADERS_BYTES = 200
"""More than all headers that the engine reads, a quoted packet's among them."""


@final
class Agreement:
    """Builds that run in step."""

    def __init__(self, engines: Sequence[Engine], world: World) -> None:
        """Begin all of them with the same tables."""
        self._engines = engines
        self._world = world
        for engine in engines:
            engine.begin(world)

    def run(self, frame: bytes, *, via: Interface = FRONT) -> Result:
        """Give all of them a frame; return what the first made of it.

        Raises:
            Mismatch: Another one made something else of it.
        """
        first, *others = self._engines
        wanted = first.run(frame, via=via)
        for engine in others:
            try:
                result = engine.run(frame, via=via)
            except Refused:
                continue
            if result != wanted:
                raise Mismatch(
                    f"{first.build.value} says {wanted}, {engine.build.value} says {result} of {frame.hex()}\n"
                    + differences([wanted.frame], result.frame)
                )
        return wanted

    def check(self, where: str) -> None:
        """Check that all have the same flows, and no half ones.

        Raises:
            Mismatch: They have not.
        """
        first, *others = self._engines
        wanted = _remembered(first, self._world.flows)
        for engine in self._engines:
            check_sound(engine, self._world.flows, where)
        for engine in others:
            have = _remembered(engine, self._world.flows)
            if have != wanted:
                raise Mismatch(f"{where}: {first.build.value} has {wanted}, {engine.build.value} has {have}")


def _remembered(engine: Engine, places: int) -> tuple[Mapping[int, FlowFields], Sequence[FlowFields]]:
    flows = {
        place: {name: value for name, value in flow.items() if name not in _OF_ITS_OWN}
        for place, flow in flows_in_use(engine, places).items()
    }
    loads = []
    for number in range(5):
        load = layout.LOAD.unpack(engine.find("LOADS", word(number)) or bytes(layout.LOAD.size))
        loads.append({name: load[name] for name in ("opened", "ended", "answered")})
    return flows, loads


def cuts(frame: bytes) -> Iterator[bytes]:
    """Yield the frame cut at each length in its headers, and shortly before its end."""
    for length in range(len(frame)):
        if length < _HEADERS_BYTES or length > len(frame) - 4:
            yield frame[:length]


def run_cut(row: Row, engines: Sequence[Engine], done: set[bytes]) -> None:
    """Run a row with each of its frames cut short before it comes whole.

    Args:
        row: A row; what it says is not looked at, since a cut frame may open a flow where the row has none.
        engines: Those that must agree.
        done: Frames that were cut before, and need not be again; those of the row are added.

    Raises:
        Mismatch: They do not, or a flow is half.
    """
    agreement = Agreement(engines, row.world)
    for step in row.steps:
        for change in step.changes:
            for engine in engines:
                apply(engine, change)
        if step.frame not in done:
            done.add(step.frame)
            for cut in cuts(step.frame):
                agreement.run(cut, via=step.via)
        agreement.run(step.frame, via=step.via)
    if row.sound:
        agreement.check(row.says)
