"""A flow's life, as far as its expiry needs it; and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from marchproxy_core.packet import layout
from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.frames import FLOWS, Flow
from marchproxy_core.testing.packets.places import BACK
from marchproxy_core.testing.packets.row import Later, Marked, Row, Seen, Step, dropped, passed
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import CLOSING, ESTABLISHED, OPENING, TCP, WORLD

_BITS = layout.enumeration("mp_seen")
_ANY, _FIN, _RESET = _BITS["SEEN"], _BITS["SEEN_FIN"], _BITS["SEEN_RESET"]
_ACK = _ANY | _BITS["SEEN_ACK"]
"""Of a client who has answered the backend."""
_TICK_NS = 1 << 30


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        yield from _ended(flow)
        yield _clock(flow)
        if flow.protocol == TCP:
            yield from _of_tcp(flow)
        else:
            yield from _of_udp(flow)


def _request(flow: Flow, flags: str, seen: Seen) -> Step:
    return flow.request(flow.segment(flags), seen=seen)


def _reply(flow: Flow, flags: str, seen: Seen) -> Step:
    return flow.reply(flow.segment(flags), seen=seen)


def _seen(client: int, backend: int, ticks: int) -> Seen:
    return Seen(client=client, backend=backend, ticks=ticks)


def _of_udp(flow: Flow) -> Iterator[Row]:
    yield Row(
        says=f"{name(flow)}: a flow lives as long before the backend has answered as afterwards",
        steps=(
            _request(flow, "", _seen(_ANY, 0, ESTABLISHED)),
            _reply(flow, "", _seen(_ANY, _ANY, ESTABLISHED)),
            _request(flow, "", _seen(_ANY, _ANY, ESTABLISHED)),
        ),
    )


def _of_tcp(flow: Flow) -> Iterator[Row]:
    opened = (
        _request(flow, "S", _seen(_ANY, 0, OPENING)),
        _request(flow, "S", _seen(_ANY, 0, OPENING)),
        _reply(flow, "SA", _seen(_ANY, _ANY, OPENING)),
        _request(flow, "A", _seen(_ACK, _ANY, ESTABLISHED)),
    )
    half = _ANY | _FIN
    acked = half | _ACK
    closed = (
        *opened,
        _request(flow, "FA", _seen(acked, _ANY, ESTABLISHED)),
        _reply(flow, "PA", _seen(acked, _ANY, ESTABLISHED)),
        _reply(flow, "FA", _seen(acked, half, CLOSING)),
        _request(flow, "A", _seen(acked, half, CLOSING)),
    )
    yield Row(
        says=f"{name(flow)}: a flow that was closed by both sides, the client first, goes soon", steps=closed
    )
    yield Row(
        says=f"{name(flow)}: a flow that was closed by both sides, the backend first, goes soon",
        steps=(
            *opened,
            _reply(flow, "FA", _seen(_ACK, half, ESTABLISHED)),
            _request(flow, "A", _seen(_ACK, half, ESTABLISHED)),
            _request(flow, "FA", _seen(acked, half, CLOSING)),
        ),
    )
    reset = _ANY | _RESET
    yield Row(
        says=f"{name(flow)}: a flow that the client resets goes soon, until a packet shows that he did not",
        steps=(
            *opened,
            _request(flow, "R", _seen(reset | _ACK, _ANY, CLOSING)),
            _request(flow, "A", _seen(_ACK, _ANY, ESTABLISHED)),
        ),
    )
    yield Row(
        says=f"{name(flow)}: a backend that refuses makes the flow go soon",
        steps=(opened[0], _reply(flow, "RA", _seen(_ANY, reset, CLOSING))),
    )
    number = WORLD.number(flow.version, flow.protocol)
    again = attrs.evolve(
        _request(flow, "S", _seen(_ANY, 0, OPENING)), loads={number: {"opened": 2, "ended": 0}}
    )
    yield Row(
        says=f"{name(flow)}: a client that begins anew with the port of a closed flow has a new one, which is counted",
        steps=(*closed, again, _reply(flow, "SA", _seen(_ANY, _ANY, OPENING))),
    )
    yield Row(
        says=f"{name(flow)}: flows whose client has answered the backend are counted once each",
        steps=(
            attrs.evolve(opened[0], loads={number: {"opened": 1, "answered": 0}}),
            attrs.evolve(opened[2], loads={number: {"opened": 1, "answered": 0}}),
            attrs.evolve(opened[3], loads={number: {"opened": 1, "answered": 1}}),
            attrs.evolve(opened[3], loads={number: {"opened": 1, "answered": 1}, 0: {"opened": 1}}),
        ),
    )
    yield Row(
        says=f"{name(flow)}: a backend that repeats its answer does not lengthen a flow whose client says nothing",
        steps=(
            opened[0],
            opened[2],
            flow.reply(
                flow.segment("SA"), changes=(Later(3 * _TICK_NS),), seen=_seen(_ANY, _ANY, OPENING - 3)
            ),
        ),
    )
    yield Row(
        says=f"{name(flow)}: what a client sends before the backend has is no answer, nor is a reset",
        steps=(
            opened[0],
            _request(flow, "A", _seen(_ANY, 0, OPENING)),
            opened[2],
            attrs.evolve(_request(flow, "RA", _seen(reset, _ANY, CLOSING)), loads={number: {"answered": 0}}),
        ),
    )


def _ended(flow: Flow) -> Iterator[Row]:
    first = flow.from_client.frame(flow.segment("S"))
    answer = flow.from_backend.frame(flow.segment("SA"))
    yield Row(
        says=f"{name(flow)}: while user space takes a flow away, nothing can begin in its place",
        steps=(
            *flow.opening(),
            dropped(first, Reason.FLOW_ENDING, changes=(Marked({"ended": 1}),)),
            passed(answer, Reason.NO_FLOW, via=BACK),
            flow.request(changes=(Marked({"ended": 0}),)),
        ),
    )


def _clock(flow: Flow) -> Row:
    ticks, client = ESTABLISHED, _ACK if flow.protocol == TCP else _ANY
    return Row(
        says=f"{name(flow)}: each packet, of either side, gives a flow its whole time again",
        steps=(
            *flow.opening(),
            flow.request(flow.segment("A"), changes=(Later(7 * _TICK_NS),), seen=_seen(client, _ANY, ticks)),
            flow.reply(
                flow.segment("A"), changes=(Later(ticks * _TICK_NS),), seen=_seen(client, _ANY, ticks)
            ),
        ),
    )
