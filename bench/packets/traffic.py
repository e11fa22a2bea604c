"""What the generator sends: points of measurement, and frames as ``programs.c`` takes them. Pure."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address
from typing import Literal

import attrs

Protocol = Literal["udp", "tcp"]

FRAME_BYTES = 60
"""Of Ethernet without its checksum: the shortest there is."""
FIRST_SOURCE_PORT = 2000
FIRST_PORT = 1000
FIRST_BLOCKED = IPv4Address("10.0.0.1")
"""Of what is to be dropped; each further address is one of the next prefix of 24 bits."""
PRIMING_PACE = 64
"""While flows are opened, one run of the generator in so many sends a packet: none may be lost."""
SLOWEST_PACE = 1024
"""What that becomes, in steps, where some were lost: a core that strangers use may be late by some ms."""

_NUMBERS: dict[Protocol, int] = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}
_TEMPLATE_BYTES = 56
_PLAN = struct.Struct(f"={_TEMPLATE_BYTES}s12I")
_ETHERNET, _IP = 14, 20
_SYN, _ACK = 0x02, 0x10
PLAN_BYTES = _PLAN.size


@attrs.frozen(order=True)
class Point:
    """What is under way: ``flows`` are spread over ``services``, each at a port of its own.

    With ``prefixes`` all of it is to be dropped: so many are blocked, and the flows come from all of them.
    """

    protocol: Protocol
    flows: int
    services: int
    prefixes: int = 0

    def __str__(self) -> str:
        if self.prefixes:
            return f"{self.protocol.upper()} from {self.prefixes:,} blocked prefix{'es' if self.prefixes > 1 else ''}"
        flows = f"{self.flows:,} flow{'s' if self.flows > 1 else ''}"
        return (
            f"{self.protocol.upper()}, {flows}, {self.services:,} service{'s' if self.services > 1 else ''}"
        )


SHAPES = ((1, 1), (1000, 1), (60_000, 1), (1000, 100), (1000, 1000))
"""Flows and services: the one axis, then the other."""
BLOCKLISTS = (1, 50_000)
"""Prefixes that are blocked, where all is dropped."""
POINTS = (
    *(Point(protocol, flows, services) for protocol in ("udp", "tcp") for flows, services in SHAPES),
    *(Point("udp", flows=count, services=1, prefixes=count) for count in BLOCKLISTS),
)


def blocked(point: Point) -> list[str]:
    """Return the prefixes that are to be blocked."""
    first = int(FIRST_BLOCKED) >> 8
    return [f"{IPv4Address((first + number) << 8)}/24" for number in range(point.prefixes)]


@attrs.frozen(kw_only=True)
class Ends:
    """Where frames come from and go to, and by which interface."""

    source: IPv4Address
    destination: IPv4Address
    source_mac: bytes
    destination_mac: bytes
    interface: int
    """Index of the one that the generator sends by, in its namespace."""


def template(protocol: Protocol, ends: Ends, *, opens: bool = False) -> bytes:
    """Return a frame without ports and transport checksum, both 0.

    Args:
        protocol: Of the packet; a TCP one has no payload.
        ends: Its addresses.
        opens: Whether it is the first of its flow: with TCP, a SYN.
    """
    if protocol == "udp":
        transport = struct.pack("!4H", 0, 0, FRAME_BYTES - _ETHERNET - _IP, 0).ljust(
            FRAME_BYTES - _ETHERNET - _IP, b"\0"
        )
    else:
        transport = struct.pack(
            "!2H2I2B3H", 0, 0, 1, 0 if opens else 1, 0x50, _SYN if opens else _ACK, 1024, 0, 0
        )
    source, destination = ends.source.packed, ends.destination.packed
    length, number = _IP + len(transport), _NUMBERS[protocol]
    header = struct.pack("!2B3H2BH", 0x45, 0, length, 0, 0x4000, 64, number, 0) + source + destination
    header = header[:10] + struct.pack("!H", 0xFFFF ^ checksum(header)) + header[12:]
    return (ends.destination_mac + ends.source_mac + b"\x08\x00" + header + transport).ljust(
        FRAME_BYTES, b"\0"
    )


def plan(point: Point, ends: Ends, *, opens: bool = False, pace: int = 1) -> bytes:
    """Return ``struct plan`` of programs.c; see :func:`template`."""
    frame = template(point.protocol, ends, opens=opens)
    header, transport = frame[_ETHERNET : _ETHERNET + _IP], frame[_ETHERNET + _IP :]
    length = int.from_bytes(header[2:4]) - _IP
    source = FIRST_BLOCKED if point.prefixes else ends.source
    covered = header[16:20] + struct.pack("!2H", header[9], length) + transport[:length]
    return _PLAN.pack(
        frame[:_TEMPLATE_BYTES],
        checksum(covered),
        _ETHERNET + _IP + (6 if point.protocol == "udp" else 16),
        point.flows,
        point.services,
        FIRST_SOURCE_PORT,
        FIRST_PORT,
        ends.interface,
        pace,
        checksum(header[:10] + header[16:20]),
        int(source),
        max(point.prefixes, 1),
        0,
    )


def checksum(data: bytes) -> int:
    """Return the sum of RFC 1071, not inverted."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data.ljust(len(data) + len(data) % 2, b"\0")))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
