"""IPv6 extension headers: walked through and left as they are, or left to the stack."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.packet import Raw

from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.frames import ETHERNET_BYTES, FLOWS, Flow, Layer, Style
from marchproxy_core.testing.packets.places import BACK
from marchproxy_core.testing.packets.row import Row, passed
from marchproxy_core.testing.packets.table.naming import name

MOST = 5
"""Extension headers that are walked through; where there is one more, the packet is left to the stack."""
_AUTHENTICATION, _ENCRYPTED, _MOBILITY, _HOST_IDENTITY, _NO_NEXT = 51, 50, 135, 139, 59
_FIRST_EXTENSION = ETHERNET_BYTES + 40


def rows() -> Iterator[Row]:
    """Yield them."""
    for flow in (one for one in FLOWS if one.version == 6):
        yield from _walked(flow)
        yield from _not_walked(flow)
        yield from _broken(flow)


def _hop_by_hop() -> Layer:
    return IPv6ExtHdrHopByHop(options=[RouterAlert()])


def _destination(size: int = 4) -> Layer:
    return IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(size))])


def _routing(left: int) -> Layer:
    return IPv6ExtHdrRouting(addresses=["2001:db8:9::1", "2001:db8:9::2"], segleft=left)


def _walked(flow: Flow) -> Iterator[Row]:
    chains: dict[str, tuple[Layer, ...]] = {
        "hop-by-hop options": (_hop_by_hop(),),
        "destination options": (_destination(),),
        "destination options of 264 bytes": (_destination(254),),
        "a routing header that has been followed to its end": (_routing(0),),
        "hop-by-hop, destination, routing and destination headers": (
            _hop_by_hop(),
            _destination(),
            _routing(0),
            _destination(12),
        ),
        f"{MOST} headers": (_hop_by_hop(), *(_destination(4 + 8 * at) for at in range(MOST - 1))),
    }
    for what, chain in chains.items():
        style = Style(between=chain)
        yield Row(
            says=f"{name(flow)}: {what} are walked through and left as they are",
            steps=(
                flow.request(style=style),
                flow.reply(style=style),
                flow.request(flow.segment("A", b"odd"), style),
            ),
        )


def _not_walked(flow: Flow) -> Iterator[Row]:
    chains: dict[str, tuple[tuple[Layer, ...], Reason]] = {
        f"{MOST + 1} extension headers are too many": (
            (_hop_by_hop(), *(_destination() for _ in range(MOST))),
            Reason.UNKNOWN_EXTENSION,
        ),
        "a routing header with a segment left has another destination": (
            (_routing(1),),
            Reason.UNKNOWN_EXTENSION,
        ),
        "a fragment header behind others is seen": (
            (_hop_by_hop(), _destination(), IPv6ExtHdrFragment(m=1, id=7)),
            Reason.FRAGMENT,
        ),
    }
    for what, (chain, reason) in chains.items():
        style = Style(between=chain)
        yield Row(
            says=f"{name(flow)}: {what}, also of a known flow",
            steps=(
                passed(flow.from_client.frame(flow.segment("S"), style), reason),
                flow.request(),
                passed(flow.from_client.frame(flow.segment("A"), style), reason),
                passed(flow.from_backend.frame(flow.segment("SA"), style), reason, via=BACK),
            ),
        )
    for what, number in {
        "an authentication header": _AUTHENTICATION,
        "an encrypted payload": _ENCRYPTED,
        "a mobility header": _MOBILITY,
        "a host identity header": _HOST_IDENTITY,
        "no next header": _NO_NEXT,
    }.items():
        # Each of these would be a header of 8 bytes with the transport header behind it.
        frame = flow.from_client.frame(flow.segment("S"), Style(between=(_destination(),)))
        known = frame[:20] + bytes((number,)) + frame[21:]
        yield Row(
            says=f"{name(flow)}: {what} is not walked through",
            steps=(passed(known, Reason.NOT_OURS),),
        )


def _broken(flow: Flow) -> Iterator[Row]:
    whole = flow.from_client.frame(flow.segment("S"), Style(between=(_destination(),)))

    def edited(at: int, value: int) -> bytes:
        return whole[:at] + bytes((value,)) + whole[at + 1 :]

    yield Row(
        says=f"{name(flow)}: an extension header that is longer than the packet cannot be read",
        steps=(passed(edited(_FIRST_EXTENSION + 1, 200), Reason.MALFORMED),),
    )
    yield Row(
        says=f"{name(flow)}: an extension header that says it is longest cannot be read",
        steps=(passed(edited(_FIRST_EXTENSION + 1, 255), Reason.MALFORMED),),
    )
    yield Row(
        says=f"{name(flow)}: an extension header of which only the beginning is there cannot be read",
        steps=(
            passed(
                flow.from_client.frame(Raw(bytes((flow.protocol, 0, 1, 4))), Style(header={"nh": 60})),
                Reason.MALFORMED,
            ),
        ),
    )
