"""What the engine counted: by service and hook, over all CPUs, since this process took the tables over. Blocks."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_core.bpf import value_stride
from marchproxy_core.packet import layout
from marchproxy_core.packet.reasons import Hook, Reason
from marchproxy_core.packet.tables import word

if TYPE_CHECKING:
    from marchproxy_core.packet.tables import Tables

_COUNTERS = struct.Struct(f"<2Q2QQ8x{len(Reason)}Q")
assert _COUNTERS.size == layout.COUNTERS.size
_ANSWERED = {Reason.TTL_EXPIRED.name.lower(), Reason.TOO_BIG.name.lower()}
NO_SERVICE = 0
"""The number under which packets of no service are counted."""


@attrs.frozen
class Counted:
    """One service at one hook."""

    packets_in: int = 0
    """Forwarded from clients to backends."""
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    opened: int = 0
    """Flows."""
    reasons: tuple[int, ...] = (0,) * len(Reason)
    """Packets by what became of them, in the order of :class:`Reason`."""

    def since(self, before: Counted) -> Counted:
        """Return the difference."""
        return Counted(
            self.packets_in - before.packets_in,
            self.packets_out - before.packets_out,
            self.bytes_in - before.bytes_in,
            self.bytes_out - before.bytes_out,
            self.opened - before.opened,
            tuple(now - then for now, then in zip(self.reasons, before.reasons, strict=True)),
        )

    def plus(self, more: Counted) -> Counted:
        """Return the sum."""
        return Counted(
            self.packets_in + more.packets_in,
            self.packets_out + more.packets_out,
            self.bytes_in + more.bytes_in,
            self.bytes_out + more.bytes_out,
            self.opened + more.opened,
            tuple(one + other for one, other in zip(self.reasons, more.reasons, strict=True)),
        )

    @property
    def drops(self) -> Mapping[str, int]:
        """Packets dropped, by reason; those that were passed on are not among them."""
        return {
            reason.name.lower(): self.reasons[reason]
            for reason in Reason
            if reason >= Reason.NO_SOURCE_PORT and self.reasons[reason]
        }


@final
class Meter:
    """Reads counters, and subtracts what was there when it first read them."""

    def __init__(self, tables: Tables) -> None:
        """Read from these tables, which stay open for as long."""
        self._tables = tables
        self._before: dict[tuple[int, Hook], Counted] = {}
        self._past: dict[Hook, Counted] = dict.fromkeys(Hook, Counted())
        """Of services that are gone."""
        for hook in Hook:
            self.begin(NO_SERVICE, hook)

    def begin(self, number: int, hook: Hook) -> None:
        """Count a service's packets at a hook from here on."""
        self._before[number, hook] = self._read(number, hook)

    def restart(self, hook: Hook) -> None:
        """Count all packets at a hook from here on: its tier was attached anew."""
        self._past[hook] = Counted()
        for number, one in self._before:
            if one is hook:
                self.begin(number, hook)

    def end(self, number: int) -> None:
        """Leave what came of a service until here to the past."""
        for hook in Hook:
            if (number, hook) in self._before:
                self._past[hook] = self._past[hook].plus(self.read(number, hook))
                del self._before[number, hook]

    def seen(self, hook: Hook) -> Mapping[str, int]:
        """Return all packets at a hook, those of no service too, by the names of their reasons in small letters."""
        total = self._total(hook)
        return {reason.name.lower(): total.reasons[reason] for reason in Reason if total.reasons[reason]}

    def read(self, number: int, hook: Hook) -> Counted:
        """Return what came since :meth:`begin`."""
        if (number, hook) not in self._before:
            self.begin(number, hook)
        return self._read(number, hook).since(self._before[number, hook])

    def dropped(self, *, malformed: bool = False) -> Mapping[str, int]:
        """Return all packets that were dropped at any hook, by reason; those answered by an ICMP error are not.

        Args:
            malformed: Whether what is malformed is dropped, too.
        """
        total = Counted()
        for hook in Hook:
            total = total.plus(self._total(hook))
        counts = {reason: count for reason, count in total.drops.items() if reason not in _ANSWERED}
        if malformed and total.reasons[Reason.MALFORMED]:
            counts[Reason.MALFORMED.name.lower()] = total.reasons[Reason.MALFORMED]
        return counts

    def _total(self, hook: Hook) -> Counted:
        total = self._past[hook]
        for number, one in self._before:
            if one is hook:
                total = total.plus(self.read(number, hook))
        return total

    def _read(self, number: int, hook: Hook) -> Counted:
        value = self._tables.counters.lookup(word(2 * number + hook))
        assert value is not None  # an array has every place
        columns = [
            sum(each) for each in zip(*map(_COUNTERS.unpack, self._tables.counters.split(value)), strict=True)
        ]
        return Counted(columns[0], columns[1], columns[2], columns[3], columns[4], tuple(columns[5:]))


@final
class Loads:
    """How many flows each service has now; the engine counts those it opens, and here those that end are counted."""

    def __init__(self, tables: Tables) -> None:
        """Look at the tables' memory; they stay open for as long as this is used."""
        size = value_stride(layout.LOAD.size)
        self._stride = size // 8
        self._opened = layout.LOAD.offset("opened") // 8
        self._ended = layout.LOAD.offset("ended") // 8
        self._answered = layout.LOAD.offset("answered") // 8
        self._lapsed = layout.LOAD.offset("lapsed") // 8
        self._bytes = memoryview(tables.load_memory)[: tables.loads.max_entries * size]
        self._words = self._bytes.cast("Q")

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._bytes.release()

    def active(self, number: int) -> int:
        """Return how many flows a service has; 0 stands for all services."""
        at = number * self._stride
        return max(self._words[at + self._opened] - self._words[at + self._ended], 0)

    def ended(self, number: int, flows: int) -> None:
        """Count flows that ended."""
        for at in (number * self._stride, 0):
            self._words[at + self._ended] += flows

    def lapsed(self, number: int, flows: int) -> None:
        """Count TCP flows of a service that ended without an answer."""
        self._words[number * self._stride + self._lapsed] += flows

    def put_right(self, number: int, active: int, opening: int) -> None:
        """Make good what was not counted when a process was stopped.

        Args:
            number: Of a service; 0 for all.
            active: Flows that are there.
            opening: Those of them that are TCP and not answered.
        """
        at = number * self._stride
        opened, answered = self._words[at + self._opened], self._words[at + self._answered]
        self._words[at + self._ended] = max(opened - active, 0)
        self._words[at + self._lapsed] = max(opened - answered - opening, 0)
