"""The plain build, as the packet table drives it. Needs a C compiler, and no rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import final

import attrs

from marchproxy_core.packet import layout
from marchproxy_core.packet.layout import Struct, address_bytes
from marchproxy_core.packet.plain import PlainEngine
from marchproxy_core.packet.reasons import Reason
from marchproxy_core.packet.tables import word
from marchproxy_core.testing.packets.engine import CounterBook, FlowFields, Result, flows_in_use
from marchproxy_core.testing.packets.places import FRONT, VERSIONS, WAYS, Interface
from marchproxy_core.testing.packets.row import Build
from marchproxy_core.testing.packets.world import BACKENDS, FLOWS, SERVICES, World, entries

START_NS = 1000 << 30
GROWTH_BYTES = 64
"""What an ICMP error may add to a packet: two headers."""
_STRUCTS: dict[str, Struct] = {
    "KEYS": layout.FLOW_REF,
    "FLOWS": layout.FLOW,
    "LOADS": layout.LOAD,
    "SETTINGS": layout.SETTINGS,
}


@final
class PlainTableEngine:
    """The library that ``marchproxy_core.packet.plain.build`` made, and a world in it."""

    def __init__(self, library: Path, build: Build = Build.PLAIN) -> None:
        """Play a hook.

        Args:
            library: The compiled library.
            build: One of the plain ones.
        """
        self.build = build
        self._library = library
        self._now = START_NS
        self._samples = 0
        self._places = FLOWS
        self._engine: PlainEngine | None = None
        self._book: CounterBook | None = None

    @property
    def _running(self) -> PlainEngine:
        assert self._engine is not None, "begin() comes first"
        return self._engine

    def begin(self, world: World) -> None:
        """Make a new world."""
        self._engine = PlainEngine(
            self._library,
            flows=world.flows,
            services=SERVICES,
            backends=BACKENDS,
            hook=self.build.hook,
            partial=self.build is Build.PLAIN_PARTIAL,
        )
        self._now, self._places, self._samples = START_NS, world.flows, 0
        self._engine.set_time(self._now)
        for route in plain_routes():
            self._engine.add_route(**attrs.asdict(route))
        self.rearrange(world)
        self._book = CounterBook(self, cpus=1)

    def rearrange(self, world: World) -> None:
        """Write services, backends and settings."""
        for table, key, value in entries(world, self.build.hook):
            self._running.put(table, key, value)

    def run(self, frame: bytes, *, via: Interface = FRONT, gso_size: int = 0) -> Result:
        """Give it a frame; it has no use for the interface."""
        del via
        assert not gso_size, "only TC has packets that stand for several"
        assert self._book is not None, "begin() comes first"
        outcome = self._running.run(frame, room=GROWTH_BYTES)
        counted = self._book.told()
        if counted != (outcome.service, outcome.reason):
            raise AssertionError(f"counted as {counted}, and told as {outcome}")
        return Result(
            verdict=outcome.verdict, reason=outcome.reason, service=outcome.service, frame=outcome.frame
        )

    def run_cut(self, frame: bytes) -> None:
        """Give it a frame in memory that ends with it, so that a sanitizer sees each read behind it.

        No room for ICMP errors then; and what it counts is counted with the next frame, so begin anew before that.
        """
        self._running.run(frame)

    def pass_time(self, by_ns: int) -> None:
        """Move the clock."""
        self._now += by_ns
        self._running.set_time(self._now)

    def tick(self) -> int:
        """Return the present tick."""
        return self._now >> 30

    def mark(self, fields: FlowFields) -> None:
        """Write fields of all flows in use."""
        for place, known in flows_in_use(self, self._places).items():
            self._running.put("FLOWS", word(place), layout.FLOW.pack(**{**known, **fields}))

    def find(self, table: str, key: bytes) -> bytes | None:
        """Return an entry."""
        return self._running.find(table, key, _STRUCTS[table].size)

    def counters(self) -> bytes:
        """Return the table of counters."""
        return self._running.find("COUNTERS", word(0), 2 * SERVICES * layout.COUNTERS.size) or b""

    def count(self, table: str) -> int:
        """Return how many entries KEYS or FREE has."""
        return self._running.count(table)

    def told(self) -> bytes | None:
        """Return the last sample, if it is a new one."""
        count, before = self._running.count("SAMPLES"), self._samples
        self._samples = count
        return self._running.find("SAMPLES", b"", layout.SAMPLE.size) if count != before else None

    def close(self) -> None:
        """Forget the world."""
        self._engine = self._book = None


@attrs.frozen(kw_only=True)
class PlainRoute:
    """What :meth:`PlainEngine.add_route` takes."""

    destination: bytes
    reason: Reason
    interface: int
    mtu: int
    source_mac: bytes
    destination_mac: bytes


def plain_routes() -> Iterator[PlainRoute]:
    """Yield the ways of places.py; the last is for all who have no way of their own."""
    default = [(bytes(16), FRONT, Reason.FORWARDED)]
    own = [
        (address_bytes(way.destination.of(version)), way.interface, way.reason)
        for way in WAYS
        for version in VERSIONS
    ]
    for destination, interface, reason in own + default:
        yield PlainRoute(
            destination=destination,
            reason=reason,
            interface=interface.number,
            mtu=interface.mtu,
            source_mac=interface.mac,
            destination_mac=interface.neighbour_mac,
        )
