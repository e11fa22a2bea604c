"""Packets that are none of ours: left as they came, for the next tier, and counted with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack_into

import attrs
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.frames import (
    ETHERNET_BYTES,
    FLOWS,
    Flow,
    Layer,
    Style,
    bare,
    echo,
)
from marchproxy_core.testing.packets.places import BACK, OTHER_SOURCE, VERSIONS
from marchproxy_core.testing.packets.row import PLAIN, WITHOUT_TC, Build, Marked, Row, Step, dropped, passed
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import TCP as TCP_NUMBER
from marchproxy_core.testing.packets.world import WORLD, changed, each_service

_DROP_MALFORMED = 4


def rows() -> Iterator[Row]:
    """Yield them."""
    yield from _not_ip()
    yield from _tagged()
    for flow in FLOWS:
        yield from _fragments(flow)
        yield from _not_ours(flow)
        yield from _malformed(flow)
        yield from _other_tier(flow)
        if flow.protocol == TCP_NUMBER:
            yield from _no_flow(flow)
    for version in VERSIONS:
        yield from _other_protocols(version)


def _not_ip() -> Iterator[Row]:
    ethernet = Ether(src="02:00:00:00:01:02", dst="ff:ff:ff:ff:ff:ff")
    frames = {
        "an ARP request": bytes(ethernet / ARP(pdst="198.18.0.1", psrc="198.18.0.254")),
        "a frame of an unknown EtherType": bytes(ethernet / Raw(bytes(50)))[:12] + b"\x88\xb5" + bytes(50),
        "an IEEE 802.3 frame with a length in place of a type": bytes(12) + b"\0\x2e" + bytes(46),
        "a frame of nothing but its header": bytes(12) + b"\x88\xb5",
    }
    for what, frame in frames.items():
        yield Row(says=f"{what} is not IP", steps=(passed(frame, Reason.NOT_IP),))
    for size in (0, 1, 13):
        yield Row(
            says=f"a frame of {size} bytes, which no driver hands up, is not IP",
            steps=(passed(bytes(size), Reason.NOT_IP),),
            builds=PLAIN,
        )


def _tagged() -> Iterator[Row]:
    for flow in FLOWS:
        frame = flow.from_client.frame(flow.segment("S"))
        inner = Ether(frame).payload
        ethernet = Ether(dst=frame[:6].hex(":"), src=frame[6:12].hex(":"))
        tags: dict[str, Layer] = {
            "one VLAN tag": Dot1Q(vlan=5),
            "two VLAN tags": Dot1AD(vlan=7) / Dot1Q(vlan=5),
            "a tag of priority only": Dot1Q(vlan=0, prio=6),
        }
        for what, tag in tags.items():
            yield Row(
                says=f"{name(flow)}: {what}: for the VLAN's own interface",
                steps=(passed(bytes(ethernet / tag / inner), Reason.TAGGED),),
            )


def _fragments(flow: Flow) -> Iterator[Row]:
    segment = flow.segment("S", bytes(64))
    if flow.version == 4:
        styles = {
            "the first fragment": Style(header={"flags": "MF"}),
            "a fragment in the middle": Style(header={"flags": "MF", "frag": 3}),
            "the last fragment": Style(header={"frag": 8}),
        }
    else:
        styles = {
            "the first fragment": Style(between=(IPv6ExtHdrFragment(m=1, id=1),)),
            "the last fragment": Style(between=(IPv6ExtHdrFragment(offset=8, id=1),)),
            "an atomic fragment": Style(between=(IPv6ExtHdrFragment(id=1),)),
        }
    for what, style in styles.items():
        yield Row(
            says=f"{name(flow)}: {what} is left to the stack, which joins them, also of a known flow",
            steps=(
                passed(flow.from_client.frame(segment, style), Reason.FRAGMENT),
                flow.request(),
                passed(flow.from_client.frame(segment, style), Reason.FRAGMENT),
                passed(flow.from_backend.frame(segment, style), Reason.FRAGMENT, via=BACK),
            ),
        )


def _not_ours(flow: Flow) -> Iterator[Row]:
    elsewhere = attrs.evolve(flow.from_client, ports=(40001, 81))
    other_address = attrs.evolve(flow, listen=OTHER_SOURCE).from_client
    segment = flow.segment("S")
    yield Row(
        says=f"{name(flow)}: another port than a service's is not ours",
        steps=(passed(elsewhere.frame(segment), Reason.NOT_OURS),),
    )
    yield Row(
        says=f"{name(flow)}: another address than a service's is not ours",
        steps=(passed(other_address.frame(segment), Reason.NOT_OURS),),
    )
    yield Row(
        says=f"{name(flow)}: the other protocol on a service's port is not ours",
        steps=(passed(flow.from_client.frame(_other(flow)), Reason.NOT_OURS),),
    )
    yield Row(
        says=f"{name(flow)}: a backend's packet without a flow is not ours",
        steps=(passed(flow.from_backend.frame(flow.segment("SA")), Reason.NOT_OURS, via=BACK),),
    )
    stray = attrs.evolve(flow, source_port=40002).from_backend
    yield Row(
        says=f"{name(flow)}: a backend's packet to another port than a flow's is not ours",
        steps=(flow.request(), passed(stray.frame(flow.segment("SA")), Reason.NOT_OURS, via=BACK)),
    )
    yield Row(
        says=f"{name(flow)}: what the client sends is not taken for what the backend sends",
        steps=(
            flow.request(),
            passed(flow.to_backend.frame(flow.segment("A")), Reason.NOT_OURS, via=BACK),
        ),
    )


def _other(flow: Flow) -> Layer:
    return UDP() if flow.protocol == TCP_NUMBER else TCP(flags="S")


def _other_protocols(version: int) -> Iterator[Row]:
    kinds: dict[str, Layer] = {
        "SCTP": SCTP(sport=40001, dport=80),
        "GRE": GRE() / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(),
        "an echo reply": ICMP(type=0) / b"ping" if version == 4 else Raw(b"\x81\0\0\0\0\0\0\0"),
    }
    if version == 6:
        kinds["a neighbour solicitation"] = ICMPv6ND_NS(tgt="2001:db8:c::1")
    for what, layer in kinds.items():
        style = Style(header={"nh": 58}) if isinstance(layer, Raw) else Style()
        yield Row(
            says=f"IPv{version}: {what} to a service's address is not ours",
            steps=(passed(bare(version, layer, style), Reason.NOT_OURS),),
        )
    yield Row(
        says=f"IPv{version}: a ping of a service's address is this host's to answer",
        steps=(passed(echo(version), Reason.NOT_OURS),),
    )
    cut = bare(version, Raw(b"\x03\x04\0"), Style(header={"proto": 1} if version == 4 else {"nh": 58}))
    yield Row(
        says=f"IPv{version}: an ICMP message that is too short to be one is not ours",
        steps=(passed(cut, Reason.NOT_OURS),),
    )


def _edited(frame: bytes, layout: str, at: int, value: int) -> bytes:
    """Return the frame with a number of it changed, and no checksum set right."""
    changed_frame = bytearray(frame)
    pack_into(layout, changed_frame, at, value)
    return bytes(changed_frame)


def _malformed(flow: Flow) -> Iterator[Row]:
    frame = flow.from_client.frame(flow.segment("S", b"payload"))
    ip = ETHERNET_BYTES
    transport = ip + (20 if flow.version == 4 else 40)
    cases: dict[str, bytes] = {
        "a frame that ends in the IP header": frame[: ip + 19 + (flow.version == 6) * 20],
        "the other version in the IP header": _edited(frame, ">B", ip, 0x65 if flow.version == 4 else 0x45),
        "a frame that ends before the packet": frame[:-1],
    }
    if flow.version == 4:
        cases |= {
            "an IP header of less than 20 bytes": _edited(frame, ">B", ip, 0x44),
            "a length that is less than the header's": _edited(frame, ">H", ip + 2, 19),
            "a length that ends in the transport header": _edited(frame, ">H", ip + 2, 20 + 7),
            "an IP header that is longer than the packet": _edited(frame, ">H", ip, 0x4F10)[: ip + 59],
        }
    else:
        cases["a length that ends in the transport header"] = _edited(frame, ">H", ip + 4, 7)
    if flow.protocol == TCP_NUMBER:
        cases["a TCP header of less than 20 bytes"] = _edited(frame, ">B", transport + 12, 0x40)
    for what, bad in cases.items():
        yield Row(
            says=f"{name(flow)}: {what}: left to the stack, which knows best",
            steps=(passed(bad, Reason.MALFORMED), flow.request(), passed(bad, Reason.MALFORMED)),
            builds=WITHOUT_TC if len(bad) < transport else frozenset(Build),
        )
    yield Row(
        says=f"{name(flow)}: what cannot be read is dropped where the settings say so",
        world=changed(doors=_DROP_MALFORMED),
        steps=(dropped(frame[:-1], Reason.MALFORMED), flow.request()),
    )


def _no_flow(flow: Flow) -> Iterator[Row]:
    for flags in ("A", "SA", "R", "RA", "F", "FA", "SF", "SR", "", "PAU"):
        segment = flow.segment(flags)
        yield Row(
            says=f"{name(flow)}: flags {flags or 'none'} begin no flow: a lower tier's connection",
            steps=(passed(flow.from_client.frame(segment), Reason.NO_FLOW),),
        )
    yield Row(
        says=f"{name(flow)}: a flow that user space has ended is none",
        steps=(
            flow.request(),
            passed(
                flow.from_client.frame(flow.segment("A")), Reason.NO_FLOW, changes=(Marked({"ended": 1}),)
            ),
            passed(flow.from_backend.frame(flow.segment("A")), Reason.NO_FLOW, via=BACK),
        ),
    )


def _other_tier(flow: Flow) -> Iterator[Row]:
    first = flow.from_client.frame(flow.segment("S"))
    elsewhere = each_service(lambda service: attrs.evolve(service, here=False), WORLD)
    yield Row(
        says=f"{name(flow)}: a service that this hook is not to carry is another tier's",
        world=elsewhere,
        steps=(_of_service(passed(first, Reason.OTHER_TIER), flow),),
    )
    answer = flow.from_backend.frame(flow.segment("SA"))
    yield Row(
        says=f"{name(flow)}: a flow that this hook may not forward is another tier's",
        steps=(
            flow.request(),
            _of_service(passed(first, Reason.OTHER_TIER, changes=(Marked({"hooks": 0}),)), flow),
            _of_service(passed(answer, Reason.OTHER_TIER, via=BACK), flow),
        ),
    )


def _of_service(step: Step, flow: Flow) -> Step:
    return attrs.evolve(step, service=WORLD.number(flow.version, flow.protocol))
