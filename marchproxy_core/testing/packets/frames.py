"""Frames, made by scapy layer by layer, as they arrive and as they must leave.

Scapy is the oracle: what must come out is built anew with the addresses that it must have, checksums and all.
Importing this needs scapy.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import attrs
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from marchproxy_core.packet.reasons import Reason, Verdict
from marchproxy_core.services import IPAddress
from marchproxy_core.testing.lab import Dual
from marchproxy_core.testing.packets.places import (
    BACK,
    BACKEND,
    CLIENT,
    FRONT,
    LISTEN,
    SOURCE,
    VERSIONS,
    Interface,
)
from marchproxy_core.testing.packets.row import Change, Seen, Step
from marchproxy_core.testing.packets.world import PORTS, PROTOCOLS

Layer: TypeAlias = Packet
ETHERNET_BYTES = 14
CLIENT_PORT = 40001
"""Among the source ports towards backends, so it is kept."""


@attrs.frozen(kw_only=True)
class Style:
    """What of a packet the engine has no part in, but for the time to live."""

    ttl: int = 64
    header: Mapping[str, object] = attrs.field(factory=dict)
    """More fields of the IP header, by scapy's names."""
    between: tuple[Layer, ...] = ()
    """IPv6 extension headers."""
    padding: bytes = b""
    """Behind the IP packet, as in frames of the least size."""


PLAINLY = Style()


@attrs.frozen(kw_only=True)
class Leg:
    """One of the four ways a flow's packets go: to the proxy and from it, for each side."""

    sender_mac: bytes
    receiver_mac: bytes
    source: IPAddress
    destination: IPAddress
    ports: tuple[int, int]

    def frame(self, segment: Layer, style: Style = PLAINLY, *, hops: int = 0) -> bytes:
        """Build a frame of a TCP or UDP segment, or of an ICMP message, that went over so many hops."""
        upper = segment.copy()
        if isinstance(upper, TCP | UDP):
            upper.sport, upper.dport = self.ports
        for extension in reversed(style.between):
            upper = extension.copy() / upper
        ethernet = Ether(src=_mac_text(self.sender_mac), dst=_mac_text(self.receiver_mac))
        header = self._header(style.ttl - hops)
        for name, value in style.header.items():
            header.setfieldval(name, value)
        return bytes(ethernet / header / upper) + style.padding

    def _header(self, ttl: int) -> Layer:
        source, destination = str(self.source), str(self.destination)
        if self.source.version == 4:
            return IP(src=source, dst=destination, ttl=ttl, id=0x1234, tos=0x10)
        return IPv6(src=source, dst=destination, hlim=ttl, tc=0x10, fl=0x54321)


@attrs.frozen(kw_only=True)
class Flow:
    """One flow's four ends, and the frames of it."""

    version: int
    protocol: int
    client: Dual = CLIENT
    listen: Dual = LISTEN
    source: Dual = SOURCE
    backend: Dual = BACKEND
    client_port: int = CLIENT_PORT
    source_port: int = CLIENT_PORT
    back: Interface = BACK
    """The interface towards the backend."""

    @property
    def listen_port(self) -> int:
        """The service's."""
        return PORTS[self.protocol][0]

    @property
    def backend_port(self) -> int:
        """The backend's."""
        return PORTS[self.protocol][1]

    @property
    def from_client(self) -> Leg:
        """Client to proxy."""
        return self._leg(
            FRONT, (self.client, self.client_port), (self.listen, self.listen_port), leaves=False
        )

    @property
    def to_backend(self) -> Leg:
        """Proxy to backend."""
        return self._leg(
            self.back, (self.source, self.source_port), (self.backend, self.backend_port), leaves=True
        )

    @property
    def from_backend(self) -> Leg:
        """Backend to proxy."""
        return self._leg(
            self.back, (self.backend, self.backend_port), (self.source, self.source_port), leaves=False
        )

    @property
    def to_client(self) -> Leg:
        """Proxy to client."""
        return self._leg(FRONT, (self.listen, self.listen_port), (self.client, self.client_port), leaves=True)

    def _leg(
        self, interface: Interface, sender: tuple[Dual, int], receiver: tuple[Dual, int], *, leaves: bool
    ) -> Leg:
        macs = (interface.mac, interface.neighbour_mac)
        sender_mac, receiver_mac = macs if leaves else reversed(macs)
        return Leg(
            sender_mac=sender_mac,
            receiver_mac=receiver_mac,
            source=sender[0].of(self.version),
            destination=receiver[0].of(self.version),
            ports=(sender[1], receiver[1]),
        )

    def segment(self, flags: str = "A", payload: bytes = b"") -> Layer:
        """Return a TCP segment with these flags, or a UDP datagram, without its ports."""
        if self.protocol == UDP_NUMBER:
            return UDP() / Raw(payload) if payload else UDP()
        tcp = TCP(flags=flags, seq=0x1000, ack=0x2000 if "A" in flags else 0)
        return tcp / Raw(payload) if payload else tcp

    def request(
        self,
        segment: Layer | None = None,
        style: Style = PLAINLY,
        *,
        changes: tuple[Change, ...] = (),
        seen: Seen | None = None,
    ) -> Step:
        """Return a step: a packet of the client's goes to the backend; by default the first of a flow."""
        what = self.segment("S") if segment is None else segment
        frame, out = self.from_client.frame(what, style), self.to_backend.frame(what, style, hops=1)
        return _forwarded(frame, (out,), FRONT, changes, seen)

    def reply(
        self,
        segment: Layer | None = None,
        style: Style = PLAINLY,
        *,
        changes: tuple[Change, ...] = (),
        seen: Seen | None = None,
    ) -> Step:
        """Return a step: a packet of the backend's goes to the client; by default the first of a flow."""
        what = self.segment("SA") if segment is None else segment
        frame, out = self.from_backend.frame(what, style), self.to_client.frame(what, style, hops=1)
        return _forwarded(frame, (out,), self.back, changes, seen)

    def opening(self) -> tuple[Step, Step]:
        """Return the steps that bring a flow to life: its first packet, and the backend's answer."""
        return _opening(self)


@functools.cache  # scapy is slow, and most rows begin so
def _opening(flow: Flow) -> tuple[Step, Step]:
    return flow.request(), flow.reply()


UDP_NUMBER = 17
FLOWS = tuple(Flow(version=version, protocol=protocol) for version in VERSIONS for protocol in PROTOCOLS)
"""One of each kind."""


def to_any_of(step: Step, others: Sequence[Step]) -> Step:
    """Return the step with all their frames allowed to come out."""
    return attrs.evolve(step, outs=tuple(out for one in (step, *others) for out in one.outs))


def bare(version: int, upper: Layer, style: Style = PLAINLY) -> bytes:
    """Return a frame from the client to the service's address with any layer in it."""
    return Flow(version=version, protocol=UDP_NUMBER).from_client.frame(upper, style)


def echo(version: int) -> bytes:
    """Return a ping of the service's address."""
    from scapy.layers.inet6 import ICMPv6EchoRequest

    return bare(version, ICMP() / b"ping" if version == 4 else ICMPv6EchoRequest(data=b"ping"))


def _forwarded(
    frame: bytes, outs: tuple[bytes, ...], via: Interface, changes: tuple[Change, ...], seen: Seen | None
) -> Step:
    return Step(
        frame=frame,
        verdict=Verdict.FORWARD,
        reason=Reason.FORWARDED,
        outs=outs,
        via=via,
        changes=changes,
        seen=seen,
    )


def _mac_text(mac: bytes) -> str:
    return mac.hex(":")
