"""One UDP service in this worker: reads its clients' datagrams, and has their flows.

Which worker a client's datagrams come to is the kernel's choice, by a hash of addresses and ports over the
sockets of the SO_REUSEPORT group. The group does not change while the service lives, so a flow stays in one worker.
"""

from __future__ import annotations

import functools
import select
import socket
import struct
from typing import TYPE_CHECKING, Final, final

import attrs

from marchproxy_core.drops import DropReason
from marchproxy_core.services import Endpoint
from marchproxy_core.workers.ledger import BYTES_IN, BYTES_OUT, PACKETS_IN, PACKETS_OUT
from marchproxy_sockets.udp.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from socket import SocketType

    from marchproxy_sockets.carried import Carried
    from marchproxy_sockets.loop import Loop
    from marchproxy_sockets.udp.batch import Batch

MOST_FLOWS: Final = 16384
"""Flows of one service in one worker. A flood of made-up client addresses takes this many descriptors and no more."""
_BURST = 4
"""How many batches are read of one socket before others get their turn."""

# A control message is a struct cmsghdr and what it is about, each padded to the size of a long (cmsg(3)).
_CMSG: Final = struct.Struct("@Nii")
_IPV4_INFO: Final = struct.Struct("@i4s4s")  # struct in_pktinfo, ip(7)
_IPV6_INFO: Final = struct.Struct("@16sI")  # struct in6_pktinfo, ipv6(7)
_IP_PKTINFO: Final = 8
_LINK_LOCAL: Final = b"\xfe\x80"


@final
@attrs.frozen(eq=False)
class Listening:
    """A listening socket that the service reads, and answers through."""

    sock: socket.socket
    descriptor: int
    endpoint: Endpoint
    is_wildcard: bool
    flows: dict[bytes, Flow] = attrs.field(factory=dict)
    """By the client's address as the kernel has it and, on a wildcard address, by where it sent to."""


@final
class UdpService:
    """Relays for one service; owns the listening sockets that it is given, and all flows."""

    def __init__(self, loop: Loop, carried: Carried, incoming: Batch, outgoing: Batch) -> None:
        """Read nothing yet.

        Args:
            loop: The worker's loop.
            carried: The service.
            incoming: For clients' datagrams; shared by all services of the worker, used within one call.
            outgoing: For backends' answers; the same.
        """
        self.loop = loop
        self.carried = carried
        self.active = 0
        """Number of flows."""
        self._incoming = incoming
        self._outgoing = outgoing
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
                one = self._listening[sock] = Listening(sock, sock.fileno(), endpoint, endpoint.is_wildcard)
                self.loop.watch(one.descriptor, select.EPOLLIN, functools.partial(self._on_datagrams, one))

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

    def prepare(self, sock: SocketType) -> None:
        """Set a socket's options before it connects to a backend."""
        settings = self.carried.settings
        if settings.recv_buffer_size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.recv_buffer_size)
        if settings.send_buffer_size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_size)

    def answer(self, flow: Flow, descriptor: int) -> int:
        """Receive a backend's answers and send them to the flow's client; return how many were received.

        Raises:
            OSError: The backend refused an earlier datagram.
        """
        batch = self._outgoing
        count = batch.receive(descriptor)
        for slot in range(count):
            batch.address(slot, flow.name, flow.control)
        done = sent_packets = sent_bytes = 0
        while done < count:
            sent = batch.send(flow.listening.descriptor, done, count - done)
            sent_packets += sent
            sent_bytes += sum([batch.length(slot) for slot in range(done, done + sent)])
            done += sent
            if done < count:  # the one that stopped it cannot be sent; the next may
                self.carried.drop(DropReason.SEND_FAILED)
                done += 1
        self.carried.counts[self.carried.first_cell + PACKETS_OUT] += sent_packets
        self.carried.counts[self.carried.first_cell + BYTES_OUT] += sent_bytes
        return count

    def _leave(self, listening: Listening) -> None:
        del self._listening[listening.sock]
        for flow in tuple(listening.flows.values()):
            flow.close()
        self.loop.close_socket(listening.sock)

    def _on_datagrams(self, listening: Listening, events: int) -> None:
        del events
        batch = self._incoming
        for _ in range(_BURST):
            count = batch.receive(listening.descriptor)
            sent_packets = sent_bytes = 0
            for slot in range(count):
                flow = self._flow_of(listening, slot)
                if flow is not None:
                    sent = flow.send(batch.payload(slot))
                    if sent is not None:
                        sent_packets += 1
                        sent_bytes += sent
            self.count_in(sent_packets, sent_bytes)
            if count < batch.slots:
                return

    def count_in(self, packets: int, size: int) -> None:
        """Count datagrams that went to a backend, and their bytes."""
        counts, first = self.carried.counts, self.carried.first_cell
        counts[first + PACKETS_IN] += packets
        counts[first + BYTES_IN] += size

    def _flow_of(self, listening: Listening, slot: int) -> Flow | None:
        key = name = self._incoming.name(slot)
        control = b""
        if listening.is_wildcard:
            control = _answering(self._incoming.control(slot))
            key = name + control
        flow = listening.flows.get(key)
        return flow if flow is not None else self._open(listening, key, name, control)

    def _open(self, listening: Listening, key: bytes, name: bytes, control: bytes) -> Flow | None:
        carried = self.carried
        if self._is_draining:
            refusal: DropReason | None = DropReason.DRAINING
        elif self.active >= MOST_FLOWS:
            refusal = DropReason.FLOW_TABLE_FULL
        else:
            refusal = carried.refuses(self.loop.now_s)
        if refusal is None:
            flow = Flow(self, listening, key, name, control)
            refusal = flow.open()
        if refusal is not None:
            carried.drop(refusal)
            return None
        listening.flows[key] = flow
        self.active += 1
        carried.opened()
        self.loop.expire_at(flow, self.loop.now_s + carried.settings.idle_timeout)
        return flow


def _answering(control: bytes) -> bytes:
    """Turn the control message that says where a datagram came to into the one that answers from there."""
    if len(control) < _CMSG.size:
        return b""
    length, level, kind = _CMSG.unpack_from(control)
    if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
        _, local, _ = _IPV4_INFO.unpack_from(control, _CMSG.size)
        # No interface: the way back is the routing table's choice.
        info = _IPV4_INFO.pack(0, local, b"\0" * 4)
    elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
        local, interface = _IPV6_INFO.unpack_from(control, _CMSG.size)
        info = _IPV6_INFO.pack(local, interface if local.startswith(_LINK_LOCAL) else 0)
    else:
        return b""
    return _CMSG.pack(length, level, kind) + info
