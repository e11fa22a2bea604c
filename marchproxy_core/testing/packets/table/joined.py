"""Packets that stand for several, as GRO makes them, at TC: judged by what they will be cut into."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.frames import ETHERNET_BYTES, FLOWS, Flow, Layer, Style
from marchproxy_core.testing.packets.places import FRONT, NARROW, NARROW_BACKEND
from marchproxy_core.testing.packets.row import Build, Row
from marchproxy_core.testing.packets.table.answers import answered
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import backends_at

_PAYLOAD_BYTES = 2900


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield _without_length(flow)
        narrow = attrs.evolve(flow, backend=NARROW_BACKEND, back=NARROW)
        joined = flow.segment("PA", bytes(at & 255 for at in range(_PAYLOAD_BYTES)))
        most = NARROW.mtu - _header_bytes(flow, joined)
        request = narrow.request(joined)
        too_big = answered(narrow.from_client, joined, Style(), Reason.TOO_BIG, FRONT, NARROW.mtu)
        yield Row(
            says=f"{name(flow)}: joined packets go on when each of them fits, and are answered when none does",
            world=backends_at(NARROW_BACKEND),
            steps=(
                *narrow.opening(),
                attrs.evolve(request, gso_size=most),
                attrs.evolve(too_big, gso_size=most + 1),
            ),
            builds=frozenset({Build.TC}),
        )


def _without_length(flow: Flow) -> Row:
    style = Style(header={"len": 0} if flow.version == 4 else {"plen": 0})
    packet = flow.segment("PA", b"some payload")
    return Row(
        says=f"{name(flow)}: a length of 0, as joined packets above 64 KiB have it, stands for the whole frame",
        steps=(*flow.opening(), flow.request(packet, style), flow.reply(packet, style)),
    )


def _header_bytes(flow: Flow, segment: Layer) -> int:
    return len(flow.from_client.frame(segment)) - ETHERNET_BYTES - _PAYLOAD_BYTES
