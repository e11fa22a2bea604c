"""Partial checksums: what the sender left to the hardware, as packets on veth and virtio have it.

They hold the sum of the pseudo-header. Those who send a packet on behind the last who would finish it must do so.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from scapy.utils import checksum

from marchproxy_core.testing.packets.frames import (
    ETHERNET_BYTES,
    FLOWS,
    PLAINLY,
    Flow,
    Layer,
    Leg,
    Style,
)
from marchproxy_core.testing.packets.places import WIDE, WIDE_BACKEND
from marchproxy_core.testing.packets.row import FINISHING, Build, Row, Step
from marchproxy_core.testing.packets.table.naming import name
from marchproxy_core.testing.packets.world import backends_at

_SIZES = (0, 1, 2, 3, 4, 31, 32, 63, 64, 65, 127, 128, 129, 1399, 1400)
_JUMBO_SIZES = (3000, 4096, 5001, 8191, 8192, 8900)
_CHECKSUM = {6: 16, 17: 6}


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in FLOWS:
        for size in _SIZES:
            segment = flow.segment("PA", bytes(at * 11 + 7 & 255 for at in range(size)))
            yield Row(
                says=f"{name(flow)}: a partial checksum is finished, over {size} bytes of payload, both ways",
                steps=(flow.request(), flow.reply(), *_both_ways(flow, segment)),
                builds=FINISHING,
            )
        segment = flow.segment("PA", b"some payload")
        padded = Style(padding=b"\xa5\xa5\xa5\xa5\xa5")
        yield Row(
            says=f"{name(flow)}: a partial checksum is finished without what pads the frame",
            steps=(flow.request(), flow.reply(), *_both_ways(flow, segment, padded)),
            builds=FINISHING,
        )
        yield Row(
            says=f"{name(flow)}: in the stack a partial checksum stays partial, both ways",
            steps=(flow.request(), flow.reply(), *_both_ways(flow, segment, finished=False)),
            builds=frozenset({Build.XDP_GENERIC}),
        )
        yield from _jumbo(flow)


def _both_ways(
    flow: Flow, segment: Layer, style: Style = PLAINLY, *, finished: bool = True
) -> tuple[Step, Step]:
    return (
        _partial(flow.request(segment, style), flow.from_client, flow.to_backend, style, finished=finished),
        _partial(flow.reply(segment, style), flow.from_backend, flow.to_client, style, finished=finished),
    )


def _partial(step: Step, arrives: Leg, leaves: Leg, style: Style, *, finished: bool) -> Step:
    padding = len(style.padding)
    frame = with_partial_checksum(step.frame, arrives, padding)
    if finished:
        return attrs.evolve(step, frame=frame)
    return attrs.evolve(
        step, frame=frame, outs=tuple(with_partial_checksum(out, leaves, padding) for out in step.outs)
    )


def with_partial_checksum(frame: bytes, leg: Leg, padding: int = 0) -> bytes:
    """Return a frame of a leg, without options and extension headers, with the sum that its sender would leave."""
    header = 20 if leg.source.version == 4 else 40
    transport = ETHERNET_BYTES + header
    protocol = frame[ETHERNET_BYTES + (9 if header == 20 else 6)]
    length = len(frame) - padding - transport
    pseudo = leg.source.packed + leg.destination.packed + length.to_bytes(4) + protocol.to_bytes(4)
    at = transport + _CHECKSUM[protocol]
    # scapy returns the complement of the sum, as the field of a finished packet has it.
    return frame[:at] + (~checksum(pseudo) & 0xFFFF).to_bytes(2) + frame[at + 2 :]


def _jumbo(flow: Flow) -> Iterator[Row]:
    wide = attrs.evolve(flow, backend=WIDE_BACKEND, back=WIDE)
    for size in _JUMBO_SIZES:
        segment = wide.segment("PA", bytes(at * 13 + 5 & 255 for at in range(size)))
        request = wide.request(segment)
        finished = _partial(request, wide.from_client, wide.to_backend, PLAINLY, finished=True)
        yield Row(
            says=f"{name(flow)}: a frame of several pieces, with {size} bytes of payload, is sent on",
            world=backends_at(WIDE_BACKEND),
            steps=(*wide.opening(), request, finished),
            builds=frozenset({Build.XDP_PIECES}),
        )
