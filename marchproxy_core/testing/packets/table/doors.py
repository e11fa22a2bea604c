"""The front door: who may come in at all, and how fast."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import attrs
from scapy.layers.inet6 import IPv6ExtHdrFragment, IPv6ExtHdrRouting

from marchproxy_core.packet import layout
from marchproxy_core.packet.layout import address_bytes
from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.frames import FLOWS, Flow, Style, echo
from marchproxy_core.testing.packets.places import BACK, OTHER_CLIENT, VERSIONS
from marchproxy_core.testing.packets.row import Later, Rearranged, Row, dropped
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import TCP as TCP_NUMBER
from marchproxy_core.testing.packets.world import WORLD, Entry, World

_KINDS = layout.enumeration("mp_door")
_ALLOW, _BLOCK = _KINDS["ALLOW"], _KINDS["BLOCK"]
_DOORS = layout.enumeration("mp_doors")
_SERVICE_BITS, _IPV4_BITS = 32, 96
"""Before the bits of an address in the key of a prefix."""
_WIDE = {4: "192.0.2.0/24", 6: "2001:db8:1::/48"}
"""Of both clients."""
_NARROW = {4: "192.0.2.7/32", 6: "2001:db8:1::7/128"}
"""Of one client."""
HOUR_NS = 3600 * 10**9


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield from _blocked(flow)
        yield from _of_a_service(flow)
        yield from _paced(flow)
        if flow.protocol == TCP_NUMBER:
            yield from _nonsense(flow)
        yield _blocked_fragments(flow)
    for version in VERSIONS:
        yield _blocked_ping(version)


def _prefix(text: str, door: int, service: int = 0) -> Entry:
    network = ipaddress.ip_network(text)
    bits = _SERVICE_BITS + network.prefixlen + (_IPV4_BITS if network.version == 4 else 0)
    key = layout.PREFIX_KEY.pack(bits=bits, service=service, address=address_bytes(network.network_address))
    return "PREFIXES", key, layout.PREFIX.pack(door=door)


def _world(*prefixes: Entry, doors: int = 0, **settings: int) -> World:
    return attrs.evolve(WORLD, extra=prefixes, settings={"doors": doors, **settings})


def _blocked(flow: Flow) -> Iterator[Row]:
    wide, narrow = _WIDE[flow.version], _NARROW[flow.version]
    doors = _DOORS["HAS_PREFIXES"]
    other = attrs.evolve(flow, client=OTHER_CLIENT)
    first = flow.from_client.frame(flow.segment("S"))
    yield Row(
        says=f"{name(flow)}: a client of a blocked prefix is kept out",
        world=_world(_prefix(wide, _BLOCK), doors=doors),
        steps=(
            dropped(first, Reason.BLOCKED),
            dropped(other.from_client.frame(other.segment()), Reason.BLOCKED),
        ),
    )
    yield Row(
        says=f"{name(flow)}: the longest prefix counts, when it allows",
        world=_world(_prefix(wide, _BLOCK), _prefix(narrow, _ALLOW), doors=doors),
        steps=(*flow.opening(), dropped(other.from_client.frame(other.segment("S")), Reason.BLOCKED)),
    )
    yield Row(
        says=f"{name(flow)}: the longest prefix counts, when it blocks",
        world=_world(_prefix(wide, _ALLOW), _prefix(narrow, _BLOCK), doors=doors),
        steps=(dropped(first, Reason.BLOCKED), *other.opening()[:1]),
    )
    yield Row(
        says=f"{name(flow)}: a client that is blocked is out at once, also with a flow that he has",
        steps=(
            *flow.opening(),
            dropped(
                flow.from_client.frame(flow.segment("A")),
                Reason.BLOCKED,
                changes=(Rearranged(_world(_prefix(narrow, _BLOCK), doors=doors)),),
            ),
            flow.reply(flow.segment("A")),
        ),
    )


def _blocked_fragments(flow: Flow) -> Row:
    leg, segment = flow.from_client, flow.segment()
    styles = (
        (Style(header={"flags": "MF"}), Style(header={"flags": "MF", "frag": 3}))
        if flow.version == 4
        else (
            Style(between=(IPv6ExtHdrFragment(m=1, id=7),)),
            Style(between=(IPv6ExtHdrRouting(segleft=1, addresses=["2001:db8::9"]),)),
        )
    )
    return Row(
        says=f"{name(flow)}: what is blocked is kept out in fragments too, and where it cannot be read to its end",
        world=_world(
            _prefix(_WIDE[flow.version], _BLOCK),
            doors=_DOORS["HAS_PREFIXES"] | _DOORS["DROP_MALFORMED"],
        ),
        steps=tuple(dropped(leg.frame(segment, style), Reason.BLOCKED) for style in styles),
    )


def _of_a_service(flow: Flow) -> Iterator[Row]:
    number = WORLD.number(flow.version, flow.protocol)
    wide, narrow = _WIDE[flow.version], _NARROW[flow.version]
    doors = _DOORS["HAS_SERVICE_PREFIXES"]
    others = [one for one in FLOWS if one.version == flow.version and one.protocol != flow.protocol]
    blocked = _world(_prefix(wide, _BLOCK, number), doors=doors)
    yield Row(
        says=f"{name(flow)}: a prefix that is blocked for one service may use the others",
        world=blocked,
        steps=(
            dropped(flow.from_client.frame(flow.segment("S")), Reason.BLOCKED),
            *(other.request() for other in others),
        ),
    )
    yield Row(
        says=f"{name(flow)}: a prefix that becomes blocked for a service keeps the flows that it has",
        steps=(
            *flow.opening(),
            flow.request(flow.segment("A"), changes=(Rearranged(blocked),)),
            dropped(
                attrs.evolve(flow, client_port=40002).from_client.frame(flow.segment("S")), Reason.BLOCKED
            ),
        ),
    )
    yield Row(
        says=f"{name(flow)}: a client may be allowed where his prefix is blocked for a service",
        world=_world(_prefix(wide, _BLOCK, number), _prefix(narrow, _ALLOW, number), doors=doors),
        steps=flow.opening(),
    )


def _paced(flow: Flow) -> Iterator[Row]:
    other = attrs.evolve(flow, client=OTHER_CLIENT, client_port=40002, source_port=40002)
    packet = flow.segment("A")
    late = dropped(flow.from_client.frame(packet), Reason.PACE)
    pace = {"pace_interval": HOUR_NS}
    yield Row(
        says=f"{name(flow)}: a client's packets come at most so fast; the backend's are not counted",
        world=_world(**pace),
        steps=(flow.request(), late, flow.reply(), flow.reply(packet), late),
    )
    yield Row(
        says=f"{name(flow)}: a client may be ahead of his pace by what the settings say",
        world=_world(**pace, pace_burst=2 * HOUR_NS),
        steps=(flow.request(), flow.request(packet), flow.request(packet), late),
    )
    yield Row(
        says=f"{name(flow)}: a client is on time again when the interval is over",
        world=_world(**pace),
        steps=(flow.request(), late, flow.request(packet, changes=(Later(HOUR_NS),)), late),
    )
    apart = flow.version == 4
    yield Row(
        says=f"{name(flow)}: "
        + ("each client has a pace of his own" if apart else "clients of one /64 share a pace"),
        world=_world(**pace),
        steps=(
            flow.request(),
            other.request() if apart else dropped(other.from_client.frame(other.segment("S")), Reason.PACE),
        ),
    )
    yield Row(
        says=f"{name(flow)}: a client of a prefix that is allowed has no pace to keep",
        world=_world(_prefix(_NARROW[flow.version], _ALLOW), doors=_DOORS["HAS_PREFIXES"], **pace),
        steps=(flow.request(), flow.request(packet), flow.request(packet)),
    )
    number = WORLD.number(flow.version, flow.protocol)
    yield Row(
        says=f"{name(flow)}: nor has one of a prefix that its service allows",
        world=_world(
            _prefix(_NARROW[flow.version], _ALLOW, number), doors=_DOORS["HAS_SERVICE_PREFIXES"], **pace
        ),
        steps=(flow.request(), flow.request(packet), flow.request(packet)),
    )


def _nonsense(flow: Flow) -> Iterator[Row]:
    for flags in ("", "F", "SF", "SR", "SFA", "PU"):
        yield Row(
            says=f"{name(flow)}: flags {flags or 'none'} are dropped where what is malformed is",
            world=_world(doors=_DOORS["DROP_MALFORMED"]),
            steps=(
                dropped(flow.from_client.frame(flow.segment(flags)), Reason.MALFORMED),
                flow.request(),
                dropped(flow.from_client.frame(flow.segment(flags)), Reason.MALFORMED),
                dropped(flow.from_backend.frame(flow.segment(flags)), Reason.MALFORMED, via=BACK),
            ),
        )


def _blocked_ping(version: int) -> Row:
    world = _world(_prefix(_WIDE[version], _BLOCK), doors=_DOORS["HAS_PREFIXES"])
    return Row(
        says=f"IPv{version}: a client of a blocked prefix cannot even ping",
        world=world,
        steps=(dropped(echo(version), Reason.BLOCKED),),
    )
