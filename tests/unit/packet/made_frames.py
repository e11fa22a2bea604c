"""Frames for hypothesis: as they should be, damaged, and of any bytes."""

from __future__ import annotations

import functools
import ipaddress

from hypothesis import strategies as st
from scapy.layers.inet import IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN, RouterAlert

from marchproxy_core.testing.packets.frames import FLOWS, Style
from marchproxy_core.testing.packets.places import is_routed
from marchproxy_core.testing.packets.table.icmp import kinds
from marchproxy_core.testing.packets.table.quoting import Quoted

_FLAGS = ("S", "SA", "A", "PA", "FA", "R", "RA", "")


@st.composite
def segments(draw, flow):
    payload = draw(st.binary(max_size=70))
    segment = flow.segment(draw(st.sampled_from(_FLAGS)), payload)
    if draw(st.integers(0, 7)) == 0:
        segment.chksum = draw(st.sampled_from((0, 1, 0xFFFF)))
    return segment


@st.composite
def styles(draw, version):
    between, header = (), {}
    if version == 6:
        extensions = st.sampled_from(
            (
                IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]),
                IPv6ExtHdrHopByHop(options=[RouterAlert()]),
            )
        )
        between = tuple(draw(st.lists(extensions, max_size=2)))
    elif draw(st.booleans()):
        header = {"options": [IPOption_NOP()] * draw(st.integers(0, 40))}
    return Style(
        ttl=draw(st.sampled_from((1, 2, 64, 255))),
        between=between,
        header=header,
        padding=draw(st.binary(max_size=8)),
    )


@st.composite
def packets(draw):
    """A packet of a flow, on its way to us."""
    flow = draw(st.sampled_from(FLOWS))
    leg = draw(st.sampled_from((flow.from_client, flow.from_client, flow.from_backend)))
    return leg.frame(draw(segments(flow)), draw(styles(flow.version)))


@st.composite
def errors(draw):
    """An ICMP error about a packet of a flow."""
    flow = draw(st.sampled_from(FLOWS))
    quoted = Quoted(
        flow=flow,
        segment=draw(segments(flow)),
        style=Style(ttl=2),
        transport_bytes=draw(st.none() | st.integers(0, 30)),
        around=draw(styles(flow.version)),
    )
    message = draw(st.sampled_from(tuple(kinds(flow.version).values())))
    about = draw(st.sampled_from((quoted.about_request, quoted.about_reply)))
    return about(message).frame


def valid():
    return st.one_of(packets(), packets(), errors())


@st.composite
def damaged(draw):
    """A good frame with some bytes changed, lost or added."""
    frame = bytearray(draw(valid()))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(frame) - 1))
        match draw(st.sampled_from(("flip", "write", "cut", "lose", "add"))):
            case "flip":
                frame[at] ^= 1 << draw(st.integers(0, 7))
            case "write":
                frame[at] = draw(st.sampled_from((0, 1, 4, 5, 6, 17, 44, 58, 60, 0x45, 0x60, 0x7F, 0xFF)))
            case "cut":
                del frame[max(at, 14) :]
            case "lose":
                del frame[at : at + draw(st.integers(1, 4))]
            case "add":
                frame[at:at] = draw(st.binary(min_size=1, max_size=4))
        if len(frame) < 14:
            frame += bytes(14 - len(frame))
    return bytes(frame)


@st.composite
def noise(draw):
    """Any bytes behind an Ethernet header, as often as not of an IP packet."""
    kind = draw(
        st.sampled_from((b"\x08\x00\x45", b"\x08\x00", b"\x86\xdd\x60", b"\x86\xdd", b"\x81\x00", b""))
    )
    return (bytes(12) + kind + draw(st.binary(max_size=120))).ljust(14, b"\0")


def frames():
    """Of all sorts, from senders whom kernel and plain build find alike."""
    return st.one_of(valid(), damaged(), damaged(), noise()).filter(comes_from_afar)


def comes_from_afar(frame):
    """Whether the way to a frame's sender is the default route, which the plain build has too."""
    source = _source(frame)
    return source is None or source in _KNOWN_SENDERS or is_routed(source)


def _source(frame):
    kind = frame[12:14]
    if kind == b"\x08\x00" and len(frame) >= 34:
        return ipaddress.IPv4Address(frame[26:30])
    if kind == b"\x86\xdd" and len(frame) >= 54:
        return ipaddress.IPv6Address(frame[22:38])
    return None


@functools.cache
def _backends():
    return frozenset(flow.backend.of(flow.version) for flow in FLOWS)


_KNOWN_SENDERS = _backends()
