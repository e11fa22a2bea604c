"""Packets of flows: rewritten and sent on, all that is not an address left as it was."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from scapy.layers.inet import UDP, IPOption_NOP, IPOption_Router_Alert, IPOption_Timestamp
from scapy.packet import Raw

from marchproxy_core.testing.packets.frames import ETHERNET_BYTES, FLOWS, Flow, Layer, Style
from marchproxy_core.testing.packets.places import FRONT, FRONT_BACKEND, OTHER_CLIENT
from marchproxy_core.testing.packets.row import Row
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import TCP, WORLD, backends_at

_LEAST_FRAME = 60
"""Bytes of an Ethernet frame without its checksum; what is shorter is padded."""
_CHECKSUM = {TCP: 16}
_UDP_CHECKSUM = 6


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield from _of_every_kind(flow)
        if flow.protocol == TCP:
            yield from _of_tcp(flow)
        else:
            yield from _of_udp(flow)
    yield from _of_ipv4()


def _of_every_kind(flow: Flow) -> Iterator[Row]:
    said = name(flow)
    number = WORLD.number(flow.version, flow.protocol)
    first, answer = flow.opening()
    yield Row(
        says=f"{said}: a flow's packets go to the backend from our address, and back from the service's",
        steps=(
            attrs.evolve(first, service=number),
            attrs.evolve(answer, service=number),
            attrs.evolve(flow.request(flow.segment("A", b"GET /")), service=number),
            attrs.evolve(flow.reply(flow.segment("PA", b"200 OK!")), service=number),
        ),
    )
    yield Row(
        says=f"{said}: the first packet may have a payload",
        steps=(flow.request(flow.segment("S", b"early data")), flow.reply()),
    )
    for size in (1, 2, 3, 5, 1400):
        payload = bytes(at * 7 & 255 for at in range(size))
        yield Row(
            says=f"{said}: a payload of {size} bytes is left as it is",
            steps=(
                first,
                flow.request(flow.segment("A", payload)),
                flow.reply(flow.segment("A", payload)),
            ),
        )
    yield Row(
        says=f"{said}: what pads a short frame stays",
        steps=(
            first,
            flow.request(flow.segment("A"), Style(padding=_padding(flow))),
            flow.reply(flow.segment("A"), Style(padding=_padding(flow))),
        ),
    )
    hairpin = attrs.evolve(flow, backend=FRONT_BACKEND, back=FRONT)
    yield Row(
        says=f"{said}: a backend may be where the clients are",
        world=backends_at(FRONT_BACKEND),
        steps=(hairpin.request(), hairpin.reply()),
    )
    other = attrs.evolve(flow, client=OTHER_CLIENT, client_port=40002, source_port=40002)
    yield Row(
        says=f"{said}: the flows of two clients stay apart",
        steps=(first, other.request(), other.reply(), answer, other.request(other.segment("A", b"two"))),
    )
    yield Row(
        says=f"{said}: a hop limit of 2 is enough for the last hop",
        steps=(flow.request(style=Style(ttl=2)), flow.reply(style=Style(ttl=2))),
    )
    yield Row(
        says=f"{said}: a hop limit of 255 is lowered like any other",
        steps=(flow.request(style=Style(ttl=255)), flow.reply(style=Style(ttl=255))),
    )


def _padding(flow: Flow) -> bytes:
    bare = flow.from_client.frame(flow.segment("A"))
    # Not zero, so that it would be missed in a checksum; at least one byte where the frame is long enough already.
    return b"\xa5" * max(_LEAST_FRAME - len(bare), 1)


def _of_tcp(flow: Flow) -> Iterator[Row]:
    said = name(flow)
    options = flow.segment("S")
    options.options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    urgent = flow.segment("PAUEC", b"!")
    urgent.urgptr, urgent.window = 1, 17
    yield Row(
        says=f"{said}: TCP options, urgent pointer and all flags are left as they are",
        steps=(flow.request(options), flow.reply(), flow.request(urgent), flow.reply(urgent)),
    )
    first, _ = flow.opening()
    wrong = flow.segment("A", b"broken on its way")
    wrong.chksum = 0x1234
    step = flow.request(wrong)
    yield Row(
        says=f"{said}: a packet that was broken on its way arrives broken",
        steps=(first, attrs.evolve(step, outs=(_still_wrong(flow, wrong, step.frame),))),
    )


def _still_wrong(flow: Flow, segment: Layer, frame: bytes) -> bytes:
    """Build the frame whose checksum is wrong by as much as the one that arrives."""
    right = segment.copy()
    del right.chksum
    at = _transport(flow) + _CHECKSUM[TCP]

    def checksum(of: bytes) -> int:
        return int.from_bytes(of[at : at + 2])

    arrives, leaves = flow.from_client.frame(right), flow.to_backend.frame(right, hops=1)
    wrong = ~((~checksum(frame) & 0xFFFF) + checksum(arrives) + (~checksum(leaves) & 0xFFFF) & 0xFFFFFFFF)
    folded = ~wrong & 0xFFFFFFFF
    while folded >> 16:
        folded = (folded & 0xFFFF) + (folded >> 16)
    return leaves[:at] + (~folded & 0xFFFF).to_bytes(2) + leaves[at + 2 :]


def _transport(flow: Flow) -> int:
    return ETHERNET_BYTES + (20 if flow.version == 4 else 40)


def _of_udp(flow: Flow) -> Iterator[Row]:
    said = name(flow)
    to_zero, from_zero = _balanced(flow, reply=False), _balanced(flow, reply=True)
    yield Row(
        says=f"{said}: a checksum that comes out as 0 is sent as 0xffff, both ways",
        steps=(flow.request(to_zero), flow.reply(from_zero)),
    )
    yield Row(
        says=f"{said}: a datagram without payload is one",
        steps=(flow.request(UDP()), flow.reply(UDP())),
    )
    if flow.version == 4:
        without = UDP(chksum=0) / Raw(b"unchecked")
        yield Row(
            says=f"{said}: a datagram without a checksum has none afterwards, both ways",
            steps=(flow.request(without), flow.reply(without), flow.request(flow.segment("A", b"checked"))),
        )


def _balanced(flow: Flow, *, reply: bool) -> Layer:
    """Return a datagram whose checksum is 0 by the sum, and 0xffff on the wire, when it leaves us."""
    leg = flow.to_client if reply else flow.to_backend
    frame = leg.frame(UDP() / Raw(b"\0\0"))
    at = _transport(flow) + _UDP_CHECKSUM
    return UDP() / Raw(frame[at : at + 2])


def _of_ipv4() -> Iterator[Row]:
    kinds: tuple[tuple[str, list[Layer]], ...] = (
        ("one option", [IPOption_Router_Alert()]),
        ("all 40 bytes of options", [IPOption_NOP()] * 40),
        ("a timestamp option", [IPOption_Timestamp(length=8, pointer=9)]),
    )
    for flow in (one for one in FLOWS if one.version == 4):
        for kind, options in kinds:
            style = Style(header={"options": options})
            yield Row(
                says=f"{name(flow)}: {kind} in the IP header: left as it is",
                steps=(flow.request(style=style), flow.reply(style=style)),
            )
        style = Style(header={"flags": "DF", "tos": 0xFF, "id": 0xFFFF})
        yield Row(
            says=f"{name(flow)}: don't-fragment, traffic class and ECN stay",
            steps=(flow.request(style=style), flow.reply(style=style)),
        )
