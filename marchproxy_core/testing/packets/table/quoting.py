"""ICMP errors about packets of a flow: as they arrive, and as they must be sent on."""

from __future__ import annotations

import attrs
from scapy.packet import Raw

from marchproxy_core.packet.reasons import Reason, Verdict
from marchproxy_core.testing.lab import Dual
from marchproxy_core.testing.packets.frames import ETHERNET_BYTES, PLAINLY, Flow, Layer, Leg, Style
from marchproxy_core.testing.packets.places import FRONT, ROUTER, Interface
from marchproxy_core.testing.packets.row import Step

LEAST = 8
"""Bytes of the transport header that a quote has at least: RFC 792."""


@attrs.frozen(kw_only=True)
class Quoted:
    """The packet that an error is about, and how it is told."""

    flow: Flow
    segment: Layer
    style: Style = PLAINLY
    transport_bytes: int | None = None
    """How much of it from the transport header on is quoted; None: all."""
    sender: Dual = ROUTER
    around: Style = PLAINLY
    """Of the packet that carries the error."""

    def about_request(self, message: Layer) -> Step:
        """Return a step: an error about a packet of the client's, as we sent it on, goes to the client."""
        flow = self.flow
        arrives = self._leg(flow.back, self.sender, flow.source, leaves=False)
        leaves = self._leg(FRONT, flow.listen, flow.client, leaves=True)
        quoted = self._cut(flow.to_backend)
        return self._step(flow.back, arrives, leaves, message, quoted, self._cut(flow.from_client))

    def about_reply(self, message: Layer) -> Step:
        """Return a step: an error about a packet of the backend's, as we sent it on, goes to the backend."""
        flow = self.flow
        arrives = self._leg(FRONT, self.sender, flow.listen, leaves=False)
        leaves = self._leg(flow.back, flow.source, flow.backend, leaves=True)
        quoted = self._cut(flow.to_client)
        return self._step(FRONT, arrives, leaves, message, quoted, self._cut(flow.from_backend))

    def _step(
        self,
        via: Interface,
        arrives: Leg,
        leaves: Leg,
        message: Layer,
        quoted: bytes,
        restored: bytes,
    ) -> Step:
        return Step(
            frame=arrives.frame(message / Raw(quoted), self.around),
            outs=(leaves.frame(message / Raw(restored), self.around, hops=1),),
            verdict=Verdict.FORWARD,
            reason=Reason.FORWARDED,
            via=via,
        )

    def _cut(self, leg: Leg) -> bytes:
        """Build the packet from its IP header on; with the addresses of that leg, and after our own hop in any case."""
        packet = leg.frame(self.segment, self.style, hops=1)[ETHERNET_BYTES:]
        if self.transport_bytes is None:
            return packet
        header = (packet[0] & 15) * 4 if self.flow.version == 4 else 40
        return packet[: header + self.transport_bytes]

    def _leg(self, interface: Interface, source: Dual, destination: Dual, *, leaves: bool) -> Leg:
        macs = (interface.mac, interface.neighbour_mac)
        sender_mac, receiver_mac = macs if leaves else reversed(macs)
        return Leg(
            sender_mac=sender_mac,
            receiver_mac=receiver_mac,
            source=source.of(self.flow.version),
            destination=destination.of(self.flow.version),
            ports=(0, 0),
        )
