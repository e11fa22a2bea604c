"""Flows from user space: which are there, and the end of those that are idle or to go.

The engine opens flows, and only this ends them, in steps that may stop anywhere: *ended* is set, so that the
engine takes the flow for none; its two keys go; a second later, when no program can hold it any more, its place
is free again. Blocks for some milliseconds at 65,536 flows.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, final

from marchproxy_core.bpf import delete_many
from marchproxy_core.packet import layout
from marchproxy_core.packet.tables import flow_stride, word

if TYPE_CHECKING:
    from marchproxy_core.packet.tables import Tables

TICK_NS = 1 << 30
"""The engine's clock in nanoseconds of CLOCK_MONOTONIC."""
_SEEN = layout.enumeration("mp_seen")
_TCP = 6
_WORDS = flow_stride() // 4
_ENDS = struct.Struct("<64s8s")  # four addresses, four ports
_OLD = 2
"""Sweeps, a second apart, up to the one in which a flow's place is free again; that in which it ended is the first."""


@final
class FlowBook:
    """All flows of one set of tables."""

    def __init__(self, tables: Tables) -> None:
        """Look at the tables' memory; they stay open for as long as this is used."""
        self._tables = tables
        self._bytes = memoryview(tables.flow_memory)[: tables.flows.max_entries * flow_stride()]
        self._words, self._halves = self._bytes.cast("I"), self._bytes.cast("H")
        self._ending: list[tuple[int, list[int]]] = [(0, self._left_over())] if self._left_over() else []
        self._sweeps = 0

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._halves.release()
        self._bytes.release()

    def live(self) -> list[int]:
        """Return the places of all flows."""
        used, ended = self._column("protocol"), self._column("ended")
        return [at for at, one in enumerate(used) if one and not ended[at]]

    def services(self) -> list[int]:
        """Return the number of the service of each place, also of those that are free."""
        return self._number("service")

    def backends(self) -> list[int]:
        """Return the backend of each place, also of those that are free."""
        return self._halves[layout.FLOW.offset("backend_id") // 2 :: flow_stride() // 2].tolist()

    def expired(self, tick: int) -> list[int]:
        """Return the flows whose time is over."""
        expires = self._number("expires")
        return [at for at in self.live() if expires[at] < tick]

    def open(self) -> list[int]:
        """Return the flows that are not over yet, as far as their ends have said so."""
        closed = self._closed()
        return [at for at in self.live() if not closed[at]]

    def newly_closed(self) -> list[int]:
        """Return the flows that are over since the last call; each once, unless its client begins anew."""
        closed, counted = self._closed(), self._column("counted")
        changed = [at for at in self.live() if closed[at] != bool(counted[at])]
        for at in changed:
            self._bytes[at * flow_stride() + layout.FLOW.offset("counted")] = closed[at]
        return [at for at in changed if closed[at]]

    def uncounted(self, places: list[int]) -> list[int]:
        """Return those of the flows whose end nobody has counted yet."""
        counted = self._column("counted")
        return [at for at in places if not counted[at]]

    def count(self, places: list[int]) -> Counter[int]:
        """Count flows by their services' numbers."""
        services = self.services()
        return Counter(services[place] for place in places)

    def unanswered(self, places: list[int]) -> list[int]:
        """Return those of the flows that are TCP and whose client has not answered the backend."""
        protocols, clients = self._column("protocol"), self._column("seen")
        return [at for at in places if protocols[at] == _TCP and not clients[at] & _SEEN["SEEN_ACK"]]

    def share(self, hooks: Mapping[int, int]) -> None:
        """Let more hooks forward the flows of services.

        Args:
            hooks: Their bits, by the services' numbers; those that may already still do.
        """
        services, known = self.services(), self._column("hooks")
        at_hooks = layout.FLOW.offset("hooks")
        for place in self.live():
            wanted = known[place] | hooks.get(services[place], 0)
            if wanted != known[place]:
                self._bytes[place * flow_stride() + at_hooks] = wanted

    def end(self, places: list[int]) -> None:
        """End flows: from here on the engine knows them no more."""
        if not places:
            return
        ended = layout.FLOW.offset("ended")
        for place in places:
            self._bytes[place * flow_stride() + ended] = 1
        delete_many(self._tables.keys, [key for place in places for key in self._keys(place)])
        self._ending.append((self._sweeps, places))

    def recycle(self) -> None:
        """Free the places of flows that ended long enough ago; call it about once a second."""
        self._sweeps += 1
        hooks, protocol = layout.FLOW.offset("hooks"), layout.FLOW.offset("protocol")
        while self._ending and self._sweeps - self._ending[0][0] >= _OLD:
            for place in self._ending.pop(0)[1]:
                # Who stops between these two loses one place until the tables are made anew; the other way
                # round two flows would get one place.
                self._bytes[place * flow_stride() + hooks] = 0
                self._bytes[place * flow_stride() + protocol] = 0
                self._tables.free.push(word(place))

    def _left_over(self) -> list[int]:
        """Return the flows that somebody who was stopped had begun to end."""
        used, ended = self._column("protocol"), self._column("ended")
        left = [at for at, gone in enumerate(ended) if gone and used[at]]
        delete_many(self._tables.keys, [key for place in left for key in self._keys(place)])
        return left

    def _keys(self, place: int) -> Iterator[bytes]:
        at = place * flow_stride()
        addresses, ports = _ENDS.unpack_from(self._bytes, at)
        protocol = bytes((self._bytes[at + layout.FLOW.offset("protocol")], 0, 0, 0))
        yield addresses[:32] + ports[:4] + protocol
        yield addresses[32:] + ports[4:] + protocol

    def _number(self, field: str) -> list[int]:
        return self._words[layout.FLOW.offset(field) // 4 :: _WORDS].tolist()

    def _column(self, field: str, byte: int = 0) -> bytes:
        return bytes(self._bytes[layout.FLOW.offset(field) + byte :: flow_stride()])

    def _closed(self) -> list[bool]:
        """Say of each place whether both sides, or one by a reset, have said that its flow is over."""
        reset, fin = _SEEN["SEEN_RESET"], _SEEN["SEEN_FIN"]
        sides = zip(self._column("seen"), self._column("seen", 1), strict=True)
        return [bool((client | backend) & reset or client & backend & fin) for client, backend in sides]


def tick_of(now_ns: int) -> int:
    """Return the engine's tick of a time of CLOCK_MONOTONIC."""
    return now_ns >> 30


def ticks_for(seconds: float) -> int:
    """Return how many ticks are at least so many seconds."""
    return int(seconds * 1e9 / TICK_NS) + 1
