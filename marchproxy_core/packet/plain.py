"""The engine as a plain library in this process: for tests and fuzzing, where there is no kernel to ask.

Needs a C compiler; nothing in the running proxy uses it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import final

import attrs
import cffi

from marchproxy_core.packet.layout import SOURCES, declarations
from marchproxy_core.packet.reasons import Hook, Reason, Verdict

FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
ALIGNMENT = 2
"""Bytes before a frame, so that its IP header is at a multiple of four, as drivers have it (NET_IP_ALIGN)."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What the engine did with one frame."""

    verdict: Verdict
    reason: Reason
    service: int
    interface: int
    """Index of the next hop's, where the verdict is FORWARD."""
    frame: bytes = attrs.field(repr=False)
    """As it left, or as it came."""


def build(target: Path, *, extra: Sequence[str] = ()) -> Path:
    """Compile the library.

    Args:
        target: Where to write it.
        extra: More flags, such as ``-fsanitize=address,undefined``.

    Raises:
        FileNotFoundError: There is no compiler.
        subprocess.CalledProcessError: It does not compile; ``stderr`` says why.
    """
    compiler = os.environ.get("CC", "cc")
    command = [compiler, *FLAGS, *extra, "-shared", "-fPIC", "-o", str(target), str(SOURCES / "plain.c")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


@lru_cache(maxsize=1)
def _declared() -> cffi.FFI:
    ffi = cffi.FFI()
    ffi.cdef(declarations("types.h") + declarations("plain.h"))
    return ffi


@lru_cache
def _opened(library: Path) -> cffi.FFI.CData:
    return _declared().dlopen(str(library))


@final
class PlainEngine:
    """One world: tables as bpf(2) has them, a clock that stands still, and routes of the caller's."""

    def __init__(
        self,
        library: Path,
        *,
        flows: int = 64,
        services: int = 16,
        backends: int = 64,
        hook: Hook = Hook.TC,
        partial: bool = False,
    ) -> None:
        """Make an empty world.

        Args:
            library: As :func:`build` made it; it stays loaded, so another one needs another path.
            flows: Places for flows.
            services: Numbers for services, 0 among them.
            backends: Places for backends, and as many for source addresses.
            hook: Which hook it plays.
            partial: Whether checksums may be partial, as on veth.
        """
        self._ffi = _declared()
        self._lib = _opened(library)
        self._world = self._ffi.gc(
            self._lib.mp_plain_new(flows, services, backends, hook, partial), self._lib.mp_plain_free
        )
        if not self._world:
            raise MemoryError("no memory for the engine's tables")
        for place in range(flows):
            self.put("FREE", b"", place.to_bytes(4, "little"))

    def set_time(self, now_ns: int) -> None:
        """Move the clock, in nanoseconds."""
        self._lib.mp_plain_set_time(self._world, now_ns)

    def add_route(
        self,
        *,
        destination: bytes = bytes(16),
        reason: Reason = Reason.FORWARDED,
        interface: int = 1,
        mtu: int = 1500,
        source_mac: bytes = bytes(6),
        destination_mac: bytes = bytes(6),
    ) -> None:
        """Add a next hop; the first that fits counts.

        Args:
            destination: 16 bytes; all zero for every destination.
            reason: ``FORWARDED``, or why there is no way.
            interface: Index of the interface.
            mtu: In bytes of IP packets.
            source_mac: 6 bytes.
            destination_mac: 6 bytes.
        """
        route = self._ffi.new("struct mp_plain_route *")
        self._ffi.buffer(route, 16)[:] = destination
        route.reason, route.interface, route.mtu = reason, interface, mtu
        route.source, route.destination_mac = list(source_mac), list(destination_mac)
        if self._lib.mp_plain_add_route(self._world, route):
            raise OverflowError("the plain build keeps 32 routes")

    def put(self, table: str, key: bytes, value: bytes, *, fresh: bool = False) -> bool:
        """Write an entry of a table, named as in ``enum mp_table`` without ``MP_``.

        Returns:
            False when ``fresh`` was asked for and the key is there already.

        Raises:
            OverflowError: The table is full, or has no such place.
        """
        answer = self._lib.mp_plain_put(self._world, self._table(table), key, value, fresh)
        if answer == -1:
            raise OverflowError(f"no room in table {table}")
        return bool(answer == 0)

    def find(self, table: str, key: bytes, size: int) -> bytes | None:
        """Return ``size`` bytes of an entry, None when there is none."""
        place = self._lib.mp_plain_find(self._world, self._table(table), key)
        return None if place == self._ffi.NULL else bytes(self._ffi.buffer(place, size))

    def remove(self, table: str, key: bytes) -> bool:
        """Remove an entry; False when it was not there."""
        return bool(self._lib.mp_plain_remove(self._world, self._table(table), key) == 0)

    def count(self, table: str) -> int:
        """Return how many entries KEYS, SERVICES or FREE has."""
        return int(self._lib.mp_plain_count(self._world, self._table(table)))

    def run(self, frame: bytes, *, room: int = 0) -> Outcome:
        """Give the engine one frame, from its Ethernet header on.

        Args:
            frame: As it came in.
            room: Bytes by which it may grow; an ICMP error may be longer than what it is about. With 0 the frame
                ends where the memory does, and a sanitizer sees each byte read behind it.
        """
        # By its size: made from bytes, it would have one more for C's end of a string.
        memory = self._ffi.new("uint8_t[]", ALIGNMENT + len(frame) + room)
        self._ffi.memmove(memory + ALIGNMENT, frame, len(frame))
        outcome = self._ffi.new("struct mp_outcome *")
        data = memory + ALIGNMENT
        self._lib.mp_plain_run(self._world, data, len(frame), len(frame) + room, outcome)
        return Outcome(
            verdict=Verdict(outcome.verdict),
            reason=Reason(outcome.reason),
            service=outcome.service,
            interface=outcome.interface,
            frame=bytes(self._ffi.buffer(data, outcome.length)),
        )

    def _table(self, name: str) -> int:
        return int(getattr(self._lib, f"MP_{name}"))
