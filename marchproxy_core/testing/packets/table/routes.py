"""Where there is no way: new flows are left to the next tier, and packets of flows dropped or left to one that can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.packet.layout import address_bytes
from marchproxy_core.packet.reasons import Hook, Reason
from marchproxy_core.testing.packets.frames import FLOWS, Flow
from marchproxy_core.testing.packets.places import BACK, LISTEN, NOWHERE, SILENT, SOURCE
from marchproxy_core.testing.packets.row import (
    WITHOUT_TC,
    Build,
    Change,
    Marked,
    Rearranged,
    Row,
    dropped,
    passed,
)
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import backends_at, changed

if TYPE_CHECKING:
    from marchproxy_core.testing.lab import Dual

_MACS = 12
"""Bytes of an Ethernet header: both addresses."""


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield from _to_backends(flow)
        yield from _to_clients(flow)
        yield from _of_flows(flow)


def _to_backends(flow: Flow) -> Iterator[Row]:
    first = flow.from_client.frame(flow.segment("S"))
    places = {
        "at the service's own address is": (LISTEN, Reason.LOCAL_DESTINATION),
        "at our address towards backends is": (SOURCE, Reason.LOCAL_DESTINATION),
        "without a route is": (NOWHERE, Reason.NO_ROUTE),
    }
    for what, (place, reason) in places.items():
        yield Row(
            says=f"{name(flow)}: a backend {what} for a lower tier",
            world=backends_at(place),
            steps=(passed(first, reason), passed(first, reason)),
        )
    yield Row(
        says=f"{name(flow)}: a backend whose link-layer address is not known is for a lower tier, which asks for it",
        world=backends_at(SILENT),
        steps=(passed(first, Reason.NO_NEIGHBOUR),),
        builds=WITHOUT_TC,
    )
    silent = attrs.evolve(flow, backend=SILENT)
    request = silent.request()
    yield Row(
        says=f"{name(flow)}: at TC the kernel asks for the link-layer address of a backend, and writes it",
        world=backends_at(SILENT),
        steps=(attrs.evolve(request, outs=(_left_to_the_kernel(request.frame, request.outs[0]),)),),
        builds=frozenset({Build.TC}),
    )


def _left_to_the_kernel(arrives: bytes, leaves: bytes) -> bytes:
    return arrives[:_MACS] + leaves[_MACS:]


def _to_clients(flow: Flow) -> Iterator[Row]:
    for what, place, reason in (
        ("link-layer address", SILENT, Reason.NO_NEIGHBOUR),
        ("route", NOWHERE, Reason.NO_ROUTE),
    ):
        lost = attrs.evolve(flow, client=place)
        yield Row(
            says=f"{name(flow)}: no flow is opened for a client to whom no {what} is known",
            steps=(passed(lost.from_client.frame(flow.segment("S")), Reason.NO_NEIGHBOUR),),
            builds=WITHOUT_TC,
        )
        request, reply = lost.opening()
        answer = (
            attrs.evolve(reply, outs=(_left_to_the_kernel(reply.frame, reply.outs[0]),))
            if reason is Reason.NO_NEIGHBOUR
            else dropped(reply.frame, reason, via=BACK)
        )
        yield Row(
            says=f"{name(flow)}: at TC a flow is opened also for a client to whom no {what} is known",
            steps=(request, answer),
            builds=frozenset({Build.TC}),
        )


def _of_flows(flow: Flow) -> Iterator[Row]:
    packet = flow.from_client.frame(flow.segment("A"))
    for what, place, reason in (
        ("route to the backend is gone", NOWHERE, Reason.NO_ROUTE),
        ("backend's link-layer address is lost", SILENT, Reason.NO_NEIGHBOUR),
    ):
        moved = _moved(flow, place)
        builds = WITHOUT_TC if reason is Reason.NO_NEIGHBOUR else frozenset(Build)
        yield Row(
            says=f"{name(flow)}: a flow whose {what}: dropped, since the stack would reset it",
            steps=(
                *flow.opening(),
                dropped(packet, reason, changes=(moved, _network_changed(Hook.XDP.bit))),
            ),
            builds=builds,
            sound=False,
        )
        yield Row(
            says=f"{name(flow)}: a flow whose {what}: left to the program at TC, where there is one",
            steps=(
                *flow.opening(),
                passed(packet, reason, changes=(moved, _network_changed(Hook.XDP.bit | Hook.TC.bit))),
            ),
            builds=builds - {Build.PLAIN, Build.TC},
            sound=False,
        )
    yield Row(
        says=f"{name(flow)}: a flow whose backend became this host: left to the stack, since the backend is gone",
        steps=(
            *flow.opening(),
            passed(
                packet,
                Reason.LOCAL_DESTINATION,
                changes=(_moved(flow, LISTEN), _network_changed(Hook.XDP.bit)),
            ),
        ),
        sound=False,
    )


def _moved(flow: Flow, place: Dual) -> Change:
    return Marked({"backend": address_bytes(place.of(flow.version))})


def _network_changed(live_hooks: int) -> Change:
    return Rearranged(changed(generation=1, live_hooks=live_hooks))
