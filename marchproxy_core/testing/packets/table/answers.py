"""ICMP errors of our own: about packets that are too big for their next hop, or at the end of their time."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from scapy.layers.inet import ICMP, IP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    PadN,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from marchproxy_core.packet.reasons import Reason, Verdict
from marchproxy_core.testing.packets.frames import (
    CLIENT_PORT,
    ETHERNET_BYTES,
    FLOWS,
    Flow,
    Layer,
    Leg,
    Style,
)
from marchproxy_core.testing.packets.places import (
    BACK,
    FRONT,
    NARROW,
    NARROW_BACKEND,
    Interface,
)
from marchproxy_core.testing.packets.row import Build, Later, Row, Step, dropped, passed
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import TCP as TCP_NUMBER
from marchproxy_core.testing.packets.world import World, backends_at, changed

MOST_QUOTED = 96
"""Bytes of the packet that an error of ours quotes at most, and a multiple of four."""
_HOPS = 64
_LAST_HOP = Style(ttl=1)
_HOUR_NS = 3600 * 10**9


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield from _at_the_end(flow)
        yield from _too_big(flow)
        yield _at_most_so_many(flow)
        yield from _of_all_shapes(flow)


def answered(leg: Leg, segment: Layer, style: Style, reason: Reason, via: Interface, mtu: int = 0) -> Step:
    """Return a step: the packet is sent back as an error about itself, from the address that it was sent to."""
    frame = leg.frame(segment, style)
    packet = frame[ETHERNET_BYTES : len(frame) - len(style.padding)]
    quoted = Raw(packet[: min(len(packet), MOST_QUOTED) & ~3])
    sender, receiver = str(leg.destination), str(leg.source)
    ip: Layer
    if leg.source.version == 4:
        ip = IP(src=sender, dst=receiver, ttl=_HOPS, id=0) / (
            ICMP(type=3, code=4, nexthopmtu=mtu) if reason is Reason.TOO_BIG else ICMP(type=11, code=0)
        )
    else:
        ip = IPv6(src=sender, dst=receiver, hlim=_HOPS) / (
            ICMPv6PacketTooBig(mtu=mtu) if reason is Reason.TOO_BIG else ICMPv6TimeExceeded(code=0)
        )
    ethernet = Ether(src=leg.receiver_mac.hex(":"), dst=leg.sender_mac.hex(":"))
    return Step(
        frame=frame, verdict=Verdict.REPLY, reason=reason, outs=(bytes(ethernet / ip / quoted),), via=via
    )


def _expired(flow: Flow, segment: Layer, style: Style = _LAST_HOP) -> Step:
    return answered(flow.from_client, segment, style, Reason.TTL_EXPIRED, FRONT)


def _at_the_end(flow: Flow) -> Iterator[Row]:
    first = flow.segment("S")
    for ttl in (1, 0):
        expired = _expired(flow, first, Style(ttl=ttl))
        yield Row(
            says=f"{name(flow)}: a first packet with {ttl} hops left is answered and opens no flow",
            steps=(expired, *flow.opening()),
        )
    packet = flow.segment("A", b"some payload")
    yield Row(
        says=f"{name(flow)}: a packet of a flow with one hop left is answered, whichever side sent it",
        steps=(
            *flow.opening(),
            _expired(flow, packet),
            answered(flow.from_backend, packet, Style(ttl=1), Reason.TTL_EXPIRED, BACK),
            flow.request(packet),
        ),
    )
    elsewhere = attrs.evolve(flow.from_client, ports=(CLIENT_PORT, 81))
    yield Row(
        says=f"{name(flow)}: a packet with one hop left that is not ours is this host's",
        steps=(passed(elsewhere.frame(first, Style(ttl=1)), Reason.NOT_OURS),),
    )


def _sized(flow: Flow, size: int) -> Layer:
    """Return a segment that makes an IP packet of that many bytes."""
    bare = len(flow.from_client.frame(flow.segment("A"))) - ETHERNET_BYTES
    return flow.segment("A", bytes(at * 5 & 255 for at in range(size - bare)))


def _too_big(flow: Flow) -> Iterator[Row]:
    narrow = attrs.evolve(flow, backend=NARROW_BACKEND, back=NARROW)
    world = backends_at(NARROW_BACKEND)
    fits, too_big = _sized(flow, NARROW.mtu), _sized(flow, NARROW.mtu + 1)
    answer = answered(narrow.from_client, too_big, Style(), Reason.TOO_BIG, FRONT, NARROW.mtu)
    yield Row(
        says=f"{name(flow)}: a packet of a flow that fits goes on, and one that is too big is answered with the MTU",
        world=_nothing_at_tc(world),
        steps=(*narrow.opening(), narrow.request(fits), answer, narrow.request(fits)),
    )
    full = _sized(flow, FRONT.mtu)
    yield Row(
        says=f"{name(flow)}: a packet of a flow as big as any that comes in is answered with the MTU",
        world=_nothing_at_tc(world),
        steps=(
            *narrow.opening(),
            answered(narrow.from_client, full, Style(), Reason.TOO_BIG, FRONT, NARROW.mtu),
        ),
    )
    yield Row(
        says=f"{name(flow)}: in the stack a packet that is too big may be several: left to the program at TC",
        world=world,
        steps=(*narrow.opening(), passed(answer.frame, Reason.OTHER_TIER)),
        builds=frozenset({Build.XDP_GENERIC}),
    )
    if flow.protocol == TCP_NUMBER:
        return
    yield Row(
        says=f"{name(flow)}: a first packet that is too big is answered and opens no flow",
        world=_nothing_at_tc(world),
        steps=(answer, *narrow.opening()),
    )
    if flow.version == 4:
        style = Style(header={"flags": "DF"})
        yield Row(
            says=f"{name(flow)}: a packet that is too big is answered with and without don't-fragment",
            world=_nothing_at_tc(world),
            steps=(answered(narrow.from_client, too_big, style, Reason.TOO_BIG, FRONT, NARROW.mtu),),
        )


def _nothing_at_tc(world: World) -> World:
    return changed(world, live_hooks=1)


def _at_most_so_many(flow: Flow) -> Row:
    first = flow.segment("S")
    expired = _expired(flow, first)
    return Row(
        says=f"{name(flow)}: errors are sent at most so often; what they would be about is dropped",
        world=changed(error_interval=_HOUR_NS),
        steps=(
            expired,
            dropped(expired.frame, Reason.ERROR_RATE),
            *flow.opening(),
            dropped(expired.frame, Reason.ERROR_RATE),
        ),
    )


def _of_all_shapes(flow: Flow) -> Iterator[Row]:
    for size in (0, 1, 2, 3, 40, 100):
        packet = flow.segment("S", bytes(range(size)))
        yield Row(
            says=f"{name(flow)}: an error quotes a packet with {size} bytes of payload in whole words",
            steps=(_expired(flow, packet),),
        )
    yield Row(
        says=f"{name(flow)}: an error does not quote what pads a frame",
        steps=(_expired(flow, flow.segment("S"), Style(ttl=1, padding=b"\xa5" * 9)),),
    )
    expired = _expired(flow, flow.segment("S"))
    yield Row(
        says=f"{name(flow)}: an error is sent again when the interval is over",
        world=changed(error_interval=_HOUR_NS),
        steps=(
            expired,
            dropped(expired.frame, Reason.ERROR_RATE, changes=(Later(_HOUR_NS - 1),)),
            attrs.evolve(expired, changes=(Later(1),)),
        ),
    )
    if flow.version == 4:
        options = Style(ttl=1, header={"options": [IPOption_NOP()] * 40})
        yield Row(
            says=f"{name(flow)}: an error quotes IP options too",
            steps=(_expired(flow, flow.segment("S", bytes(40)), options),),
        )
    else:
        extension = Style(ttl=1, between=(IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(20))]),))
        yield Row(
            says=f"{name(flow)}: an error quotes extension headers too",
            steps=(_expired(flow, flow.segment("S", bytes(40)), extension),),
        )
