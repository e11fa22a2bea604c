"""One UDP flow: a client of one listening socket, and the backend that answers it."""

from __future__ import annotations

import errno
import os
import select
import socket
from socket import SocketType
from typing import TYPE_CHECKING, Final, final

from marchproxy_core.drops import DropReason
from marchproxy_core.relay.outgoing import NO_DESCRIPTORS, set_buffers

if TYPE_CHECKING:
    from collections.abc import Hashable

    from marchproxy_core.relay.proxy_header import Address
    from marchproxy_core.relay.udp.service import Listening, UdpService
    from marchproxy_core.services import Endpoint

_DATAGRAM: Final = int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_NO_PORT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAGAIN})
"""What connect(2) of a datagram socket says when no port of ours is free; the backend is not to blame."""
_TRY_LATER: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS})
_BURST: Final = 32
"""How many answers are read of one backend before others get their turn."""


@final
class Flow:
    """Counted as open until :meth:`close`. Its socket is connected, so the kernel lets only its backend in."""

    __slots__ = (
        "answered",
        "backend_cell",
        "backend_endpoint",
        "client",
        "control",
        "due_tick",
        "first",
        "key",
        "listening",
        "service",
        "sock",
        "touched_s",
        "tried",
    )

    def __init__(
        self,
        service: UdpService,
        listening: Listening,
        key: Hashable,
        client: Address,
        control: tuple[tuple[int, int, bytes], ...],
    ) -> None:
        """Note who the client is; :meth:`open` finds a backend.

        Args:
            service: The service.
            listening: The socket that the client talks to.
            key: Under which the service has the flow.
            client: The client's address.
            control: Control messages to answer with, so that answers come from where the client sent to.
        """
        self.service = service
        self.listening = listening
        self.key = key
        self.client = client
        self.control = control
        self.sock: SocketType | None = None
        self.backend_cell = 0
        self.backend_endpoint: Endpoint | None = None
        self.tried: tuple[Endpoint, ...] = ()
        self.first: bytes | None = None
        """What opened the flow, until a backend answers: it is sent again if this one refuses."""
        self.answered = False
        self.touched_s = service.loop.now_s
        self.due_tick = 0

    def open(self) -> DropReason | None:
        """Choose a backend that was not tried yet; return why there is none, None when there is."""
        carried = self.service.carried
        while True:
            tried = [index for index, one in enumerate(carried.backends) if one in self.tried]
            index = carried.pick(self._packed_client() if carried.by_client else None, tried)
            if index is None:
                return DropReason.BACKEND_REFUSED if self.tried else DropReason.NO_BACKEND
            endpoint = carried.backends[index]
            try:
                sock = SocketType(self.service.families[index], _DATAGRAM)
            except OSError as error:
                if error.errno in NO_DESCRIPTORS:
                    return DropReason.NO_DESCRIPTORS
                self._note_failure(endpoint, error)
                continue
            try:
                set_buffers(sock, carried.settings)
                sock.connect((str(endpoint.ip), endpoint.port))
                self.service.loop.watch(sock.fileno(), select.EPOLLIN, self.on_event)
            except OSError as error:
                sock.close()
                if error.errno in _NO_PORT:
                    return DropReason.NO_SOURCE_PORT
                self._note_failure(endpoint, error)
                continue
            self.sock, self.backend_endpoint = sock, endpoint
            self.backend_cell = carried.backend_cells[index]
            carried.counts[self.backend_cell] += 1
            return None

    def send(self, payload: memoryview | bytes) -> int | None:
        """Send one datagram of the client's to the backend; return its bytes, None when it was not sent."""
        self.touched_s = self.service.loop.now_s
        while self.sock is not None:
            try:
                sent = self.sock.send(payload)
            except ConnectionRefusedError as error:
                # About an earlier datagram: this one was not sent, and goes to the next backend.
                self.refused(error)
            except OSError:
                self.service.carried.drop(DropReason.SEND_FAILED)
                return None
            else:
                if self.first is None and not self.answered:
                    self.first = bytes(payload)
                return sent
        self.service.carried.drop(DropReason.BACKEND_REFUSED)
        return None

    def on_event(self, events: int) -> None:
        """Take the backend's answers, or learn that nobody is there."""
        del events
        service, sock, buffer = self.service, self.sock, self.service.buffer
        assert sock is not None
        packets = size = 0
        failure: OSError | None = None
        for _ in range(_BURST):
            try:
                length = sock.recv_into(buffer)
            except OSError as error:
                failure = error if error.errno not in _TRY_LATER else None
                break
            if not self.answered:
                self._answered()
            self.touched_s = service.loop.now_s
            if self._reply(buffer[:length]):
                packets += 1
                size += length
        service.count_out(packets, size)
        if failure is None:
            return
        if failure.errno == errno.EMSGSIZE:
            # A router sent a datagram back as too large for its next link (udp(7)): the path is narrow, the backend
            # well. Linux has noted the path's MTU, and breaks later datagrams up.
            service.carried.drop(DropReason.SEND_FAILED)
        else:
            self.refused(failure)

    def refused(self, error: OSError) -> None:
        """Go to another backend with what opened the flow, unless this one has answered before."""
        assert self.backend_endpoint is not None
        self._note_failure(self.backend_endpoint, error)
        self._leave_backend()
        if self.answered:
            self.close()
            return
        reason = self.open()
        if reason is not None:
            self.service.carried.drop(reason)
            self.close()
            return
        first, self.first = self.first, None
        sent = self.send(first) if first is not None else None
        if sent is not None:
            self.service.count_in(1, sent)

    def close(self) -> None:
        """End the flow, once."""
        service = self.service
        if self.listening.flows.pop(self.key, None) is None:
            return
        service.active -= 1
        service.loop.expire_at(self, None)
        self._leave_backend()
        service.carried.closed()

    def on_deadline(self, now_s: float) -> float | None:
        """End the flow after ``IDLE_TIMEOUT`` without a datagram."""
        due_s = self.touched_s + self.service.carried.settings.idle_timeout
        if now_s < due_s:
            return due_s
        self.close()
        return None

    def _answered(self) -> None:
        self.answered = True
        self.first = None
        if self.backend_endpoint is not None:
            self.service.carried.worked(self.backend_endpoint)

    def _reply(self, payload: memoryview) -> bool:
        try:
            if self.control:
                self.listening.sock.sendmsg((payload,), self.control, 0, self.client)
            else:
                self.listening.sock.sendto(payload, self.client)
        except OSError:
            self.service.carried.drop(DropReason.SEND_FAILED)
            return False
        return True

    def _leave_backend(self) -> None:
        if self.sock is not None:
            self.service.loop.close_socket(self.sock, is_copy=False)
            self.sock = None
            self.service.carried.counts[self.backend_cell] -= 1

    def _note_failure(self, endpoint: Endpoint, error: OSError) -> None:
        self.tried = (*self.tried, endpoint)
        self.service.carried.failed(endpoint, error.strerror or os.strerror(error.errno or errno.EIO))

    def _packed_client(self) -> bytes:
        host = self.client[0]
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
