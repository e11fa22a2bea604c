"""ICMP errors about packets of flows go to whoever sent those; all other ICMP is this host's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6ExtHdrDestOpt,
    PadN,
)
from scapy.packet import Raw

from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.frames import ETHERNET_BYTES, FLOWS, Flow, Layer, Style
from marchproxy_core.testing.packets.places import BACK
from marchproxy_core.testing.packets.row import Marked, Row, dropped, passed
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.table.quoting import LEAST, Quoted
from marchproxy_core.testing.packets.world import TCP as TCP_NUMBER

_MTU = 1400
_ICMP_BYTES = 8


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield from _sent_on(flow)
        yield from _of_all_shapes(flow)
        yield from _not_sent_on(flow)


def kinds(version: int) -> Mapping[str, Layer]:
    """Return the errors there are, without a quote."""
    if version == 4:
        return {
            "port unreachable": ICMP(type=3, code=3),
            "fragmentation needed": ICMP(type=3, code=4, nexthopmtu=_MTU),
            "time exceeded": ICMP(type=11, code=0),
            "parameter problem": ICMP(type=12, code=0, ptr=8),
        }
    return {
        "port unreachable": ICMPv6DestUnreach(code=4),
        "packet too big": ICMPv6PacketTooBig(mtu=_MTU),
        "time exceeded": ICMPv6TimeExceeded(code=0),
        "parameter problem": ICMPv6ParamProblem(code=1, ptr=6),
    }


def _segment(flow: Flow) -> Layer:
    return flow.segment("PA", b"some bytes of payload, an odd number")


def _sent_on(flow: Flow) -> Iterator[Row]:
    for kind, message in kinds(flow.version).items():
        for how, size in {"8 bytes": LEAST, "all": None}.items():
            quoted = Quoted(flow=flow, segment=_segment(flow), transport_bytes=size)
            from_backend = attrs.evolve(quoted, sender=flow.backend)
            yield Row(
                says=f"{name(flow)}: {kind}, with {how} of a packet quoted, goes to whoever sent that",
                steps=(
                    *flow.opening(),
                    quoted.about_request(message),
                    quoted.about_reply(message),
                    from_backend.about_request(message),
                    flow.request(flow.segment("A")),
                ),
            )


def _of_all_shapes(flow: Flow) -> Iterator[Row]:
    message = next(iter(kinds(flow.version).values()))
    plain = Quoted(flow=flow, segment=_segment(flow))
    shapes: dict[str, Quoted] = {
        "that is padded": attrs.evolve(plain, around=Style(padding=b"\xa5\xa5\xa5"), transport_bytes=LEAST),
        "whose quote ends in the middle of a word": attrs.evolve(plain, transport_bytes=27),
        "about a packet without payload": attrs.evolve(plain, segment=flow.segment("A")),
        "about a packet with a hop limit of 1 left": attrs.evolve(plain, style=Style(ttl=2)),
    }
    if flow.version == 4:
        options = Style(header={"options": [IPOption_NOP()] * 8})
        shapes["that has IP options"] = attrs.evolve(plain, around=options)
        shapes["about a packet with IP options"] = attrs.evolve(plain, style=options)
        shapes["about a first fragment"] = attrs.evolve(plain, style=Style(header={"flags": "MF"}))
        if flow.protocol != TCP_NUMBER:
            unchecked = UDP(chksum=0) / Raw(b"unchecked")
            shapes["about a datagram without a checksum"] = attrs.evolve(plain, segment=unchecked)
    else:
        extension = Style(between=(IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]),))
        shapes["that has an extension header"] = attrs.evolve(plain, around=extension)
    for what, quoted in shapes.items():
        yield Row(
            says=f"{name(flow)}: an error {what} is sent on, both ways",
            steps=(*flow.opening(), quoted.about_request(message), quoted.about_reply(message)),
        )
    other = attrs.evolve(plain, flow=attrs.evolve(flow, source_port=39999, client_port=39998))
    yield Row(
        says=f"{name(flow)}: an error about another flow to the same backend is not ours",
        steps=(*flow.opening(), passed(other.about_request(message).frame, Reason.NOT_OURS, via=BACK)),
    )


def _not_sent_on(flow: Flow) -> Iterator[Row]:
    message = next(iter(kinds(flow.version).values()))
    plain = Quoted(flow=flow, segment=_segment(flow))
    whole = plain.about_request(message)
    cases: dict[str, tuple[Layer, Quoted]] = {
        "with less than 8 bytes of a transport header": (
            message,
            attrs.evolve(plain, transport_bytes=LEAST - 1),
        ),
        "about a packet of another protocol": (message, attrs.evolve(plain, segment=_other(flow))),
    }
    if flow.version == 4:
        cases["that is a redirect"] = (ICMP(type=5, code=1, gw="198.18.1.9"), plain)
        cases["that is a source quench"] = (ICMP(type=4), plain)
        cases["about a later fragment"] = (message, attrs.evolve(plain, style=Style(header={"frag": 5})))
    else:
        unknown = ICMPv6DestUnreach(type=100)
        cases["of a type that is not known"] = (unknown, plain)
        behind = Style(between=(IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]),))
        cases["about a packet with an extension header"] = (message, attrs.evolve(plain, style=behind))
    for what, (kind, quoted) in cases.items():
        yield Row(
            says=f"{name(flow)}: ICMP {what} is left to this host",
            steps=(
                *flow.opening(),
                passed(quoted.about_request(kind).frame, Reason.NOT_OURS, via=BACK),
                passed(quoted.about_reply(kind).frame, Reason.NOT_OURS),
            ),
        )
    yield from _unreadable(flow, whole.frame)
    yield Row(
        says=f"{name(flow)}: an error about a packet of no flow is this host's",
        steps=(passed(whole.frame, Reason.NOT_OURS, via=BACK),),
    )
    yield Row(
        says=f"{name(flow)}: an error about a packet of a flow that has ended is this host's",
        steps=(
            *flow.opening(),
            passed(whole.frame, Reason.NO_FLOW, via=BACK, changes=(Marked({"ended": 1}),)),
        ),
    )
    dying = attrs.evolve(plain, around=Style(ttl=1))
    yield Row(
        says=f"{name(flow)}: an error at the end of its time is dropped, and no error sent about it",
        steps=(
            *flow.opening(),
            dropped(dying.about_request(message).frame, Reason.TTL_EXPIRED, via=BACK),
            dropped(dying.about_reply(message).frame, Reason.TTL_EXPIRED),
        ),
    )


def _unreadable(flow: Flow, whole: bytes) -> Iterator[Row]:
    at = ETHERNET_BYTES + (20 if flow.version == 4 else 40) + _ICMP_BYTES
    firsts = {"the other version": 0x65, "a header of 16 bytes": 0x44} if flow.version == 4 else {}
    for what, first in firsts.items():
        frame = whole[:at] + bytes((first,)) + whole[at + 1 :]
        yield Row(
            says=f"{name(flow)}: an error that quotes {what} is this host's",
            steps=(*flow.opening(), passed(frame, Reason.NOT_OURS, via=BACK)),
        )
    yield Row(
        says=f"{name(flow)}: an error that ends in the IP header that it quotes is this host's",
        steps=(*flow.opening(), passed(_shortened(flow, whole, at + 12), Reason.NOT_OURS, via=BACK)),
    )


def _shortened(flow: Flow, frame: bytes, size: int) -> bytes:
    """Return the frame cut to so many bytes, with a length in its IP header that says so."""
    at, header = (ETHERNET_BYTES + 2, 0) if flow.version == 4 else (ETHERNET_BYTES + 4, 40)
    return frame[:at] + (size - ETHERNET_BYTES - header).to_bytes(2) + frame[at + 2 : size]


def _other(flow: Flow) -> Layer:
    return UDP(sport=40001, dport=8080) if flow.protocol == TCP_NUMBER else TCP(sport=40001, dport=5353)
