"""New flows that are refused: too many, too fast, or no room.

What is there goes on, and no refusal leaves anything behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs

from marchproxy_core.packet import layout
from marchproxy_core.packet.layout import address_bytes, port_bytes
from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.frames import FLOWS, Flow
from marchproxy_core.testing.packets.places import OTHER_CLIENT
from marchproxy_core.testing.packets.row import Later, Rearranged, Row, dropped, passed
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import TCP, WORLD, Service, World, changed, each_service

HOUR_NS = 3600 * 10**9


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield from _refused(flow)
        yield from _rates(flow)
        yield from _no_backend(flow)
        if flow.protocol == TCP:
            yield _too_many_opening(flow)
        yield _fault(flow)


def _other(flow: Flow) -> Flow:
    return attrs.evolve(flow, client=OTHER_CLIENT, client_port=40002, source_port=40002)


def _limited(limits: Mapping[str, int]) -> World:
    def with_limits(service: Service) -> Service:
        return attrs.evolve(service, limits=limits)

    return each_service(with_limits, WORLD)


def _refused(flow: Flow) -> Iterator[Row]:
    other = _other(flow)
    frame = other.from_client.frame(other.segment("S"))
    number = WORLD.number(flow.version, flow.protocol)
    worlds = {
        Reason.MAX_CONNECTIONS: ("its service has as many as it may have", _limited({"max_active": 1})),
        Reason.GLOBAL_MAX_CONNECTIONS: ("there are as many as there may be", changed(max_active=1)),
        Reason.FLOW_TABLE_FULL: ("the table of flows is full", attrs.evolve(WORLD, flows=1)),
    }
    for reason, (why, world) in worlds.items():
        refused = attrs.evolve(dropped(frame, reason), service=number)
        first, answer = flow.opening()
        yield Row(
            says=f"{name(flow)}: a new flow is refused when {why}, and the others go on",
            world=world,
            steps=(
                attrs.evolve(first, loads={number: {"opened": 1}, 0: {"opened": 1}}),
                refused,
                answer,
                attrs.evolve(refused, loads={number: {"opened": 1}, 0: {"opened": 1}}),
                flow.request(flow.segment("A", b"on")),
            ),
        )
    yield Row(
        says=f"{name(flow)}: the limit of one service is none of another's",
        world=_limited({"max_active": 1}),
        steps=tuple(one.request() for one in FLOWS),
    )


def _rates(flow: Flow) -> Iterator[Row]:
    other = _other(flow)
    frame = other.from_client.frame(other.segment("S"))
    rate = {"interval": HOUR_NS}
    worlds: dict[Reason, tuple[str, Callable[[Mapping[str, int]], World]]] = {
        Reason.CONNECTION_RATE: ("its service's", _limited),
        Reason.GLOBAL_CONNECTION_RATE: ("the whole", lambda fields: attrs.evolve(WORLD, settings=fields)),
    }
    for reason, (whose, make) in worlds.items():
        yield Row(
            says=f"{name(flow)}: a new flow that comes too early for {whose} rate is refused, and the others go on",
            world=make(rate),
            steps=(*flow.opening(), dropped(frame, reason), flow.request(flow.segment("A"))),
        )
        yield Row(
            says=f"{name(flow)}: a burst may be ahead of {whose} rate by what the settings say",
            world=make({**rate, "burst": HOUR_NS}),
            steps=(
                flow.request(),
                other.request(),
                dropped(_third(flow).from_client.frame(flow.segment("S")), reason),
            ),
        )
        yield Row(
            says=f"{name(flow)}: a new flow is on time again when {whose} interval is over",
            world=make(rate),
            steps=(
                flow.request(),
                dropped(frame, reason, changes=(Later(HOUR_NS - 1),)),
                other.request(changes=(Later(1),)),
                dropped(_third(flow).from_client.frame(flow.segment("S")), reason),
            ),
        )


def _third(flow: Flow) -> Flow:
    return attrs.evolve(flow, client_port=40003, source_port=40003)


def _no_backend(flow: Flow) -> Iterator[Row]:
    frame = flow.from_client.frame(flow.segment("S"))

    def without_picks(service: Service) -> Service:
        return attrs.evolve(service, picks=())

    empty = attrs.evolve(WORLD, backends=())
    sourceless = attrs.evolve(
        WORLD, backends=tuple(attrs.evolve(backend, sources=()) for backend in WORLD.backends)
    )
    worlds = {
        "whose service has none": each_service(without_picks, WORLD),
        "whose service has one that is no longer there": empty,
        "whose service's cannot be reached from any address": sourceless,
    }
    for what, world in worlds.items():
        yield Row(
            says=f"{name(flow)}: a new flow {what}: no backend, for a lower tier",
            world=world,
            steps=(passed(frame, Reason.NO_BACKEND),),
        )
    yield Row(
        says=f"{name(flow)}: a flow goes on when its service has no backend any more",
        steps=(
            *flow.opening(),
            flow.request(flow.segment("A"), changes=(Rearranged(each_service(without_picks, WORLD)),)),
            passed(_third(flow).from_client.frame(flow.segment("S")), Reason.NO_BACKEND),
        ),
    )


def _too_many_opening(flow: Flow) -> Row:
    other, third = _other(flow), _third(flow)
    frame = other.from_client.frame(other.segment("S"))
    return Row(
        says=f"{name(flow)}: a new flow is refused while too many are opening, and taken when a client has answered",
        world=changed(max_opening=1),
        steps=(
            flow.request(),
            dropped(frame, Reason.TOO_MANY_OPENING),
            flow.request(),
            flow.reply(),
            dropped(frame, Reason.TOO_MANY_OPENING),
            flow.request(flow.segment("A")),
            other.request(),
            dropped(third.from_client.frame(third.segment("S")), Reason.TOO_MANY_OPENING),
        ),
    )


def _fault(flow: Flow) -> Row:
    leg = flow.from_client
    key = layout.FLOW_KEY.pack(
        source=address_bytes(leg.source),
        destination=address_bytes(leg.destination),
        source_port=port_bytes(leg.ports[0]),
        destination_port=port_bytes(leg.ports[1]),
        protocol=flow.protocol,
    )
    return Row(
        says=f"{name(flow)}: a key that leads to no flow is a fault of ours: the packet is dropped",
        world=attrs.evolve(WORLD, extra=(("KEYS", key, layout.FLOW_REF.pack(flow=1 << 20)),)),
        steps=(dropped(leg.frame(flow.segment("S")), Reason.FAULT),),
        sound=False,
    )
