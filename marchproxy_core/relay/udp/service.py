"""One UDP service in this worker: reads its clients' datagrams, and has their flows.

Which worker a client's datagrams come to is the kernel's choice, by a hash of addresses and ports over the
sockets of the SO_REUSEPORT group. The group does not change while the service lives, so a flow stays in one worker.

One system call a datagram: recvmmsg(2) and sendmmsg(2) by way of ctypes were measured beside it on Linux 6.18, and
gained nothing in bursts of 32 to one client, but cost twice as much an answer where each client gets its own (5.5 us
instead of 2.9).
"""

from __future__ import annotations

import functools
import select
import socket
import struct
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, final

import attrs

from marchproxy_core.drops import DropReason
from marchproxy_core.relay.udp.flow import Flow
from marchproxy_core.services import Endpoint
from marchproxy_core.workers.ledger import BYTES_IN, BYTES_OUT, PACKETS_IN, PACKETS_OUT

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.relay.loop import Loop
    from marchproxy_core.relay.proxy_header import Address

MOST_FLOWS: Final = 16384
"""Flows of one service in one worker. A flood of made-up client addresses takes this many descriptors and no more."""
DATAGRAM_BYTES: Final = 1 << 16
"""More than the largest UDP payload, 65,527 bytes: no datagram is ever cut."""
_BURST: Final = 128
"""How many datagrams are read of one socket before others get their turn."""

# The core has a wildcard's sockets say by control message where a datagram came to, and nothing else.
_IPV4_INFO: Final = struct.Struct("@i4s4s")  # struct in_pktinfo, ip(7)
_IPV6_INFO: Final = struct.Struct("@16sI")  # struct in6_pktinfo, ipv6(7)
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_IPV6_INFO.size)
_LINK_LOCAL: Final = b"\xfe\x80"


@final
@attrs.frozen(eq=False)
class Listening:
    """A listening socket that the service reads, and answers through."""

    sock: socket.socket
    endpoint: Endpoint
    is_wildcard: bool
    flows: dict[Hashable, Flow] = attrs.field(factory=dict)
    """By the client's address and, on a wildcard address, by where it sent to."""


@final
class UdpService:
    """Relays for one service; owns the listening sockets that it is given, and all flows."""

    def __init__(self, loop: Loop, carried: Carried, buffer: memoryview) -> None:
        """Read nothing yet.

        Args:
            loop: The worker's loop.
            carried: The service.
            buffer: Of ``DATAGRAM_BYTES``, for the datagram in hand; shared by all services of the worker.
        """
        self.loop = loop
        self.carried = carried
        self.active = 0
        """Number of flows."""
        self.buffer = buffer
        self._listening: dict[socket.socket, Listening] = {}
        self._is_draining = False
        self._settings = carried.settings
        self.update()

    def update(self) -> None:
        """Follow what changed in :attr:`carried`."""
        if self.carried.settings is not self._settings:
            self._settings = self.carried.settings
            for listening in self._listening.values():
                for flow in listening.flows.values():
                    self.loop.expire_by(flow, self.loop.now_s + self._settings.idle_timeout)
        self.families = tuple(
            int(socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET)
            for endpoint in self.carried.backends
        )
        """Of each backend."""
        if self.carried.flushed:
            self._end_flows_to(self.carried.flushed)

    def listen(self, sockets: Sequence[tuple[Endpoint, socket.socket]], *, serve_out: bool = False) -> None:
        """Read exactly these sockets; others are closed, and their flows end: nobody here would hear the clients.

        Args:
            sockets: The sockets, each with its address.
            serve_out: Means nothing here: answers to what still waits could not be sent.
        """
        del serve_out
        self._is_draining = False
        wanted = {sock: endpoint for endpoint, sock in sockets}
        for listening in [one for sock, one in self._listening.items() if sock not in wanted]:
            self._leave(listening)
        for sock, endpoint in wanted.items():
            if sock not in self._listening:
                one = self._listening[sock] = Listening(sock, endpoint, endpoint.is_wildcard)
                self.loop.watch(sock.fileno(), select.EPOLLIN, functools.partial(self._on_datagrams, one))

    def drain(self) -> None:
        """Let the flows that there are go on; datagrams of other clients are dropped."""
        self._is_draining = True

    def leave(self, taken: Container[Endpoint]) -> None:
        """While draining, end the flows on addresses that other services have now, and close their sockets.

        Those services read the same queue, or have their share of the clients by the kernel's hash: a datagram that
        came here would be lost to them.
        """
        for listening in [one for one in self._listening.values() if one.endpoint in taken]:
            self._leave(listening)

    def close(self, reason: DropReason | None = None) -> None:
        """End every flow and close every socket; ``reason`` counts for each flow that is cut."""
        if reason is not None and self.active:
            self.carried.drop(reason, self.active)
        self.listen(())

    def count_in(self, packets: int, size: int) -> None:
        """Count datagrams that went to a backend, and their bytes."""
        counts, first = self.carried.counts, self.carried.first_cell
        counts[first + PACKETS_IN] += packets
        counts[first + BYTES_IN] += size

    def count_out(self, packets: int, size: int) -> None:
        """Count datagrams that went to a client, and their bytes."""
        counts, first = self.carried.counts, self.carried.first_cell
        counts[first + PACKETS_OUT] += packets
        counts[first + BYTES_OUT] += size

    def _end_flows_to(self, backends: Container[Endpoint]) -> None:
        flows = [flow for listening in self._listening.values() for flow in listening.flows.values()]
        for flow in flows:
            if flow.backend_endpoint in backends:
                self.carried.drop(DropReason.FLUSHED)
                flow.close()

    def _leave(self, listening: Listening) -> None:
        del self._listening[listening.sock]
        for flow in tuple(listening.flows.values()):
            flow.close()
        self.loop.close_socket(listening.sock)

    def _on_datagrams(self, listening: Listening, events: int) -> None:
        del events
        sock, flows, buffer = listening.sock, listening.flows, self.buffer
        packets = size = 0
        for _ in range(_BURST):
            key: Hashable
            control: list[tuple[int, int, bytes]] = []
            try:
                if listening.is_wildcard:
                    length, control, _, client = sock.recvmsg_into((buffer,), _CONTROL_BYTES)
                    key = client, _local(control)
                else:
                    length, client = sock.recvfrom_into(buffer)
                    key = client
            except OSError:
                break  # nothing more, or no memory just now: epoll tells again
            flow = flows.get(key)
            if flow is None:
                flow = self._open(listening, key, client, _answering(control))
                if flow is None:
                    continue
            sent = flow.send(buffer[:length])
            if sent is not None:
                packets += 1
                size += sent
        self.count_in(packets, size)

    def _open(
        self,
        listening: Listening,
        key: Hashable,
        client: Address,
        control: tuple[tuple[int, int, bytes], ...],
    ) -> Flow | None:
        carried = self.carried
        if self._is_draining:
            refusal: DropReason | None = DropReason.DRAINING
        elif self.active >= MOST_FLOWS:
            refusal = DropReason.FLOW_TABLE_FULL
        else:
            refusal = carried.refuses(self.loop.now_s, client[0])
        if refusal is None:
            flow = Flow(self, listening, key, client, control)
            refusal = flow.open()
        if refusal is not None:
            carried.drop(refusal)
            return None
        listening.flows[key] = flow
        self.active += 1
        carried.opened()
        self.loop.expire_at(flow, self.loop.now_s + carried.settings.idle_timeout)
        return flow


def _local(control: list[tuple[int, int, bytes]]) -> bytes:
    """Return the packed address that a datagram came to."""
    for level, _, info in control:
        return info[4:8] if level == socket.IPPROTO_IP else info[:16]
    return b""


def _answering(control: list[tuple[int, int, bytes]]) -> tuple[tuple[int, int, bytes], ...]:
    """Turn the control message that says where a datagram came to into the one that answers from there."""
    for level, kind, info in control:
        if level == socket.IPPROTO_IP:
            _, local, _ = _IPV4_INFO.unpack(info)
            # No interface: the way back is the routing table's choice.
            return ((level, kind, _IPV4_INFO.pack(0, local, b"\0" * 4)),)
        local, interface = _IPV6_INFO.unpack(info)
        return ((level, kind, _IPV6_INFO.pack(local, interface if local.startswith(_LINK_LOCAL) else 0)),)
    return ()
