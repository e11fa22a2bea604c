"""Writes the engine's tables of backends: where they are, from which addresses they are reached, who gets which slot.

Blocks. Nothing is written that is there already, so a look at an unchanged network costs nothing.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, final

from marchproxy_core.backends.maglev import cached_table
from marchproxy_core.bpf import Map, items, update_many
from marchproxy_core.packet import layout
from marchproxy_core.packet.numbers import Numbers
from marchproxy_core.packet.tables import MOST_SOURCES, PICKS_IN_ENTRY, picks_spec, word
from marchproxy_core.services import Endpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from marchproxy_core.packet.arrangement import Picks
    from marchproxy_core.packet.tables import Tables
    from marchproxy_core.services import IPAddress

_NONE = bytes(layout.BACKEND.size)
_PICKS_AT_ONCE = 64
"""Each takes a file descriptor until the engine sees it."""


@final
class BackendTables:
    """The one writer of BACKENDS, SOURCES and PICKS."""

    def __init__(self, tables: Tables) -> None:
        """Take over what the tables have from before; they stay open for as long as this is used."""
        self._tables = tables
        self._numbers: Numbers[Endpoint] = Numbers(0, tables.backends.max_entries, "EBPF_MAPS_SIZE")
        self._written: dict[tuple[str, bytes], bytes] = {}
        self._picks: dict[int, tuple[Picks, tuple[int, ...]]] = {}
        self._coming: dict[int, tuple[Map, tuple[Picks, tuple[int, ...]]]] = {}
        for key, value in items(tables.backends):
            if value != _NONE:
                self._numbers.adopt(_endpoint(value), int.from_bytes(key, "little"))

    def put(self, endpoint: Endpoint, sources: Sequence[IPAddress]) -> int:
        """Write a backend, and return its place.

        Args:
            endpoint: Where it is.
            sources: Addresses it may be reached from, one or more; each backend is given four of them at most.

        Raises:
            NoPlace: There are too many backends.
        """
        place = self._numbers.of(endpoint)
        first = place * MOST_SOURCES
        used = [sources[(place + at) % len(sources)] for at in range(min(len(sources), MOST_SOURCES))]
        for at, ip in enumerate(used):
            self._write(self._tables.sources, word(first + at), layout.address_bytes(ip))
        entry = layout.BACKEND.pack(
            address=layout.address_bytes(endpoint.ip),
            port=layout.port_bytes(endpoint.port),
            sources=len(used),
            first_source=first,
        )
        self._write(self._tables.backends, word(place), entry)
        return place

    def put_picks(self, table: int, picks: Picks, places: tuple[int, ...]) -> None:
        """Write a service's slots for one version of IP; :meth:`show_picks` has the engine see them, all at once.

        Args:
            table: Place of the table of picks.
            picks: Who gets which share; some weight is above 0.
            places: Of the backends, in the order of ``picks.endpoints``.
        """
        if self._picks.get(table) == (picks, places):
            return
        keys = tuple(str(endpoint).encode() for endpoint in picks.endpoints)
        slots = array("H", [places[at] for at in cached_table(keys, picks.weights, picks.size)])
        slots.extend([slots[0]] * (-len(slots) % PICKS_IN_ENTRY))
        raw, size = slots.tobytes(), layout.PICKS.size
        entries = [(word(at), raw[at * size : (at + 1) * size]) for at in range(len(raw) // size)]
        one = Map.create(picks_spec(picks.size))
        self._coming[table] = one, (picks, places)
        update_many(one, entries)
        if len(self._coming) >= _PICKS_AT_ONCE:
            self.show_picks()

    def show_picks(self) -> None:
        """Have the engine see the slots that were put since the last call.

        Together, because the kernel waits for an RCU grace period after each change of a map of maps, some 10 ms
        (maybe_wait_bpf_programs() in kernel/bpf/syscall.c): that of a thousand services would take as many.
        """
        coming, self._coming = self._coming, {}
        try:
            entries = [(word(table), word(one.fd)) for table, (one, _) in coming.items()]
            update_many(self._tables.picks, entries)
            self._picks.update({table: written for table, (_, written) in coming.items()})
        finally:
            for one, _ in coming.values():
                one.close()

    def endpoint(self, place: int) -> Endpoint | None:
        """Return who has a place."""
        return self._numbers.name(place)

    def keep(self, endpoints: Collection[Endpoint]) -> None:
        """Free the places of all others; what they hold stays until somebody else gets them."""
        self._numbers.keep(endpoints)

    def _write(self, table: Map, key: bytes, value: bytes) -> None:
        if self._written.get((table.name, key)) != value:
            table.update(key, value)
            self._written[table.name, key] = value


def _endpoint(value: bytes) -> Endpoint:
    address = layout.address_of(value[: layout.ADDRESS.size])
    at = layout.BACKEND.offset("port")
    return Endpoint(address, int.from_bytes(value[at : at + 2]))
