"""Source ports towards backends: kept where they can be, else another one, and refused when none is left."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.frames import FLOWS, Flow, to_any_of
from marchproxy_core.testing.packets.places import OTHER_CLIENT, OTHER_SOURCE, SOURCE
from marchproxy_core.testing.packets.row import Rearranged, Row, Step, dropped
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import Backend, World, changed, each_backend

_SEVERAL = 16


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield from _kept(flow)
        yield from _of_one(flow)
        yield from _of_several(flow)
        yield _second_source(flow)


def _range(first: int, last: int) -> World:
    return changed(first_port=first, last_port=last)


def _kept(flow: Flow) -> Iterator[Row]:
    for which, port in {"first": 40000, "last": 40099, "middle": 40050}.items():
        kept = attrs.evolve(flow, client_port=port, source_port=port)
        yield Row(
            says=f"{name(flow)}: the client's port is kept when it is the {which} of the range",
            steps=kept.opening(),
        )
    for which, port in {"below": 39999, "above": 40002, "far below": 1, "far above": 65535}.items():
        other = attrs.evolve(flow, client_port=port, source_port=40001)
        yield Row(
            says=f"{name(flow)}: a client's port {which} the range is replaced",
            world=_range(40001, 40001),
            steps=(*other.opening(), other.request(other.segment("A", b"more"))),
        )


def _of_one(flow: Flow) -> Iterator[Row]:
    other = attrs.evolve(flow, client=OTHER_CLIENT)
    refused = dropped(other.from_client.frame(other.segment("S")), Reason.NO_SOURCE_PORT)
    yield Row(
        says=f"{name(flow)}: a second client is refused when the only port is taken, and the first goes on",
        world=_range(40001, 40001),
        steps=(
            *flow.opening(),
            refused,
            flow.request(flow.segment("A")),
            refused,
            flow.reply(flow.segment("A")),
        ),
    )
    beside = attrs.evolve(other, source_port=40000)
    yield Row(
        says=f"{name(flow)}: a second client with the same port gets the other one",
        world=_range(40000, 40001),
        steps=(*flow.opening(), *beside.opening(), flow.request(flow.segment("A"))),
    )
    yield Row(
        says=f"{name(flow)}: an empty range of ports refuses all, and one that is widened again does not",
        world=_range(40001, 40000),
        steps=(
            dropped(flow.from_client.frame(flow.segment("S")), Reason.NO_SOURCE_PORT),
            flow.request(changes=(Rearranged(changed()),)),
        ),
    )


def _of_several(flow: Flow) -> Iterator[Row]:
    ports = range(40000, 40000 + _SEVERAL)
    clients = [attrs.evolve(flow, client_port=port, source_port=port) for port in ports]
    late = attrs.evolve(flow, client=OTHER_CLIENT)
    refused = dropped(late.from_client.frame(late.segment("S")), Reason.NO_SOURCE_PORT)
    yield Row(
        says=f"{name(flow)}: of {_SEVERAL + 1} clients with {_SEVERAL} ports the last is refused, and the others go on",
        world=_range(ports[0], ports[-1]),
        steps=(
            *(client.request() for client in clients),
            refused,
            *(client.reply() for client in clients),
            refused,
            *(client.request(client.segment("A", b"on")) for client in clients),
        ),
    )


def _second_source(flow: Flow) -> Row:
    """The address is drawn by chance, so either may come first."""
    ends = [
        attrs.evolve(flow, source=source, client=client, client_port=1, source_port=40001)
        for client in (flow.client, OTHER_CLIENT)
        for source in (SOURCE, OTHER_SOURCE)
    ]
    late = attrs.evolve(flow, client_port=2)

    def either(one: Flow, other: Flow) -> Step:
        return to_any_of(one.request(), [other.request()])

    def with_two(backend: Backend) -> Backend:
        version = backend.address.version
        return attrs.evolve(backend, sources=(SOURCE.of(version), OTHER_SOURCE.of(version)))

    return Row(
        says=f"{name(flow)}: when one source address has no port left the other one is used, then none",
        world=each_backend(with_two, _range(40001, 40001)),
        steps=(
            either(ends[0], ends[1]),
            either(ends[2], ends[3]),
            dropped(late.from_client.frame(late.segment("S")), Reason.NO_SOURCE_PORT),
        ),
    )
