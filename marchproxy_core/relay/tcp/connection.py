"""One TCP connection: from its accept over a PROXY header and the choice of a backend to its end."""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import select
import socket
import struct
import termios
from socket import SocketType
from typing import TYPE_CHECKING, Final, final

import structlog

from marchproxy_core.drops import DropReason
from marchproxy_core.relay.accepting import RESET_ON_CLOSE
from marchproxy_core.relay.loop import TICK_S
from marchproxy_core.relay.outgoing import NO_DESCRIPTORS
from marchproxy_core.relay.proxy_header import encode_v1, encode_v2
from marchproxy_core.relay.tcp.end import NOBODY, WATCH, End
from marchproxy_core.relay.tcp.greeting import Greeting
from marchproxy_core.services import ProxyHeader
from marchproxy_core.workers.ledger import BYTES_IN, BYTES_OUT

if TYPE_CHECKING:
    from marchproxy_core.relay.accepting import Address
    from marchproxy_core.relay.proxy_header import Decoded
    from marchproxy_core.relay.tcp.service import TcpService
    from marchproxy_core.services import Endpoint

log = structlog.get_logger()

_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


class _State(enum.Enum):
    HEADER = enum.auto()
    CONNECTING = enum.auto()
    RELAYING = enum.auto()
    LAST_WORDS = enum.auto()
    """The backend has reset; what it said before that still goes to the client."""
    OVER = enum.auto()


# By these names: looking a member up in its class costs eight times as much (CPython 3.11), ten times a connection.
_HEADER, _CONNECTING, _RELAYING, _LAST_WORDS, _OVER = _State


@final
class Connection:
    """A client that was let in; counted as open until :meth:`finish`."""

    __slots__ = (
        "backend",
        "backend_cell",
        "backend_endpoint",
        "began_s",
        "client",
        "counts",
        "due_tick",
        "early",
        "error",
        "peer",
        "proxied",
        "service",
        "state",
        "touched_s",
        "tried",
        "why",
    )

    def __init__(self, service: TcpService, sock: SocketType, peer: Address) -> None:
        """Take over an accepted, non-blocking socket."""
        carried = service.carried
        self.service = service
        self.counts = carried.counts
        self.client = End(self, sock, carried.first_cell + BYTES_IN)
        self.client.writable = True  # nothing was sent yet
        self.backend: End | None = None
        self.backend_cell = 0
        self.backend_endpoint: Endpoint | None = None
        self.peer = peer
        """Who the client is: its address, or what its PROXY header says."""
        self.proxied: Address | None = None
        """Where the client connected to, as its PROXY header says."""
        self.early = b""
        """What came after the PROXY header and with it."""
        self.began_s = self.touched_s = service.loop.now_s
        self.due_tick = 0
        self.state = _CONNECTING
        self.tried: tuple[Endpoint, ...] = ()
        self.error = ""
        self.why = DropReason.NO_BACKEND
        """What became of the last backend tried."""

    def start(self) -> None:
        """Read the PROXY header if there is to be one, then find a backend."""
        loop = self.service.loop
        if self.service.carried.work.service.proxy_protocol.accept:
            self.state = _HEADER
            loop.expire_at(self, loop.now_s + self.service.carried.settings.read_timeout)
            loop.watch(self.client.fd, WATCH, Greeting(self).on_event)
        else:
            loop.watch(self.client.fd, WATCH, self.client.on_event)
            self.connect()

    def greeted(self, header: Decoded, rest: bytes) -> None:
        """Go on with who the client is by its PROXY header, and what came after that."""
        if header.source is not None:
            self.peer, self.proxied = header.source, header.destination
        self.early = rest
        # Edge-triggered: more may have come, and nobody would tell again.
        self.client.readable = True
        self.service.loop.hand_over(self.client.fd, self.client.on_event)
        self.connect()

    def connect(self) -> None:
        """Begin to connect to a backend; when none is left, the client is reset."""
        self.state = _CONNECTING
        carried = self.service.carried
        while True:
            # By name, not by index: a reload may have come between two tries.
            tried = (
                [index for index, one in enumerate(carried.backends) if one in self.tried]
                if self.tried
                else ()
            )
            index = carried.pick(self.service.key_of(self.peer) if carried.by_client else None, tried)
            if index is None:
                self.finish(self.why, reset=True)
                return
            self.backend_endpoint = carried.backends[index]
            try:
                error = self._begin(index)
            except OSError as failure:
                error = failure.errno or errno.EIO
                if error in NO_DESCRIPTORS:
                    self.finish(DropReason.NO_DESCRIPTORS, reset=True)
                    return
            if not error:
                return
            if error == errno.EADDRNOTAVAIL:
                # connect(2): no port of ours is free; the backend is not to blame.
                self.why = DropReason.NO_SOURCE_PORT
                self.tried = (*self.tried, self.backend_endpoint)
            else:
                self._refused(DropReason.BACKEND_REFUSED, os.strerror(error))

    def on_connected(self, events: int) -> None:
        """Learn how connecting to the backend ended."""
        backend = self.backend
        assert backend is not None
        if events & (select.EPOLLERR | select.EPOLLHUP):
            error = backend.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._leave_backend()
            self._refused(DropReason.BACKEND_REFUSED, os.strerror(error or errno.ECONNRESET))
            self.connect()
        elif events & select.EPOLLOUT:
            self._established(events)

    def blocked(self) -> None:
        """See to it that a peer that takes nothing is found in time."""
        loop = self.service.loop
        loop.expire_by(self, loop.now_s + self.service.carried.settings.write_timeout)

    def broke(self, end: End, error: OSError) -> None:
        """End the connection because one end failed; the other end is reset, as this one was.

        A server that answers and closes without having read all of the request resets the connection (RFC 9112,
        section 9.6): its answer may still be on its way here, and goes to the client first.
        """
        what = error.strerror or type(error).__name__
        if end is not self.backend or end.ended or self.state is not _RELAYING:
            self.finish(reset=True, error=what)
            return
        if self.backend_endpoint is not None and (not end.moved or error.errno == errno.ETIMEDOUT):
            self.service.carried.failed(self.backend_endpoint, what)
        self.state = _LAST_WORDS
        self.error = what
        self.client.give_up()
        end.gone = end.readable = True
        end.forward()

    def both_ended(self) -> None:
        """End the connection because nothing comes from either end any more."""
        if self.state is not _LAST_WORDS:
            self.finish()
        elif not _unsent_bytes(self.client.sock):
            self.finish(reset=True)
        else:
            # The kernel does not tell when it has sent everything (a reset throws the rest away): look again.
            self.service.loop.expire_at(self, self.service.loop.now_s + TICK_S)

    def flush(self) -> None:
        """Leave the backend: for another one while it has not answered yet, else the connection is over."""
        if self.state is _CONNECTING:
            self._leave_backend()
            self.connect()
        else:
            self.finish(DropReason.FLUSHED, reset=True)

    def finish(self, reason: DropReason | None = None, *, reset: bool = False, error: str = "") -> None:
        """End the connection, once.

        Args:
            reason: Why it was cut, and counted as a drop; None when it ended by itself.
            reset: Tell both ends by a reset rather than by the end of the stream.
            error: What went wrong, for the log.
        """
        if self.state is _OVER:
            return
        self.state = _OVER
        service = self.service
        if reason is not None:
            service.carried.drop(reason)
        if service.carried.tells_all:
            self._tell(reason, error or self.error)
        service.loop.expire_at(self, None)
        client = self.client
        if reset:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        service.loop.close_socket(client.sock, is_copy=False)
        if self.backend is not None:
            if self.backend.moved and self.backend_endpoint is not None:
                service.carried.worked(self.backend_endpoint)
            self._leave_backend(reset=reset)
        client.release()
        self.client = NOBODY  # ends the cycle of references, so that memory is free at once
        service.carried.closed()
        service.connections.discard(self)

    def on_deadline(self, now_s: float) -> float | None:
        """Cut the connection if something took too long; else say when to look again."""
        settings = self.service.carried.settings
        if self.state is _HEADER:
            self.finish(DropReason.READ_TIMEOUT, reset=True, error="no PROXY header")
            return None
        if self.state is _CONNECTING:
            self._leave_backend()
            self._refused(DropReason.BACKEND_TIMEOUT, f"no answer within {settings.connect_timeout:g} s")
            self.connect()
            return None
        if self.state is _LAST_WORDS and self.backend is not None and self.backend.ended:
            if now_s - self.touched_s < settings.write_timeout:
                self.both_ended()
            else:
                self.finish(DropReason.WRITE_TIMEOUT, reset=True)
            return None
        idle_due_s = self.touched_s + settings.idle_timeout
        due_s = min(
            idle_due_s,
            *(
                end.waiting_since_s + settings.write_timeout
                for end in (self.client, self.backend)
                if end is not None and end.waiting
            ),
            idle_due_s,
        )
        if now_s < due_s:
            return due_s
        if due_s == idle_due_s:
            self.finish(DropReason.IDLE_TIMEOUT)
        else:
            self.finish(DropReason.WRITE_TIMEOUT, reset=True)
        return None

    def _begin(self, index: int) -> int:
        """Open a socket and begin to connect; return the error that came at once, 0 when all is well so far."""
        service = self.service
        family, address = service.targets[index]
        sock = SocketType(family, _STREAM)
        try:
            service.prepare(sock)
            error = sock.connect_ex(address)
            if error and error != errno.EINPROGRESS:
                sock.close()
                return error
            self.backend = end = End(self, sock, service.carried.first_cell + BYTES_OUT)
            self.backend_cell = service.carried.backend_cells[index]
            service.loop.watch(end.fd, WATCH, self.on_connected)
        except OSError:
            sock.close()
            self.backend = None
            raise
        self.counts[self.backend_cell] += 1
        end.other, self.client.other = self.client, end
        service.loop.expire_at(self, service.loop.now_s + service.carried.settings.connect_timeout)
        return 0

    def _established(self, events: int) -> None:
        backend, client, service = self.backend, self.client, self.service
        assert backend is not None
        self.state = _RELAYING
        # The deadline stays where it is as a rule: when it comes, it finds the connection relaying and looks on.
        service.loop.expire_by(self, service.loop.now_s + service.carried.settings.idle_timeout)
        backend.writable = True
        service.loop.hand_over(backend.fd, backend.on_event)
        first = self._proxy_header() + self.early if service.sends_header else self.early
        if first:
            self.early = b""
            client.held = first
            client.waiting = True
            client.waiting_since_s = service.loop.now_s
        client.forward()
        if events & ~select.EPOLLOUT:
            backend.on_event(events & ~select.EPOLLOUT)

    def _proxy_header(self) -> bytes:
        destination = self.proxied or self.client.sock.getsockname()
        if self.service.carried.work.service.proxy_protocol.send is ProxyHeader.V1:
            return encode_v1(self.peer, destination)
        return encode_v2(self.peer, destination)

    def _refused(self, why: DropReason, error: str) -> None:
        assert self.backend_endpoint is not None
        self.why = why
        self.tried = (*self.tried, self.backend_endpoint)
        self.service.carried.failed(self.backend_endpoint, error)

    def _leave_backend(self, *, reset: bool = False) -> None:
        backend = self.backend
        assert backend is not None
        if reset:
            backend.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.service.loop.close_socket(backend.sock, is_copy=False)
        backend.release()
        self.backend = None
        self.client.other = NOBODY
        self.counts[self.backend_cell] -= 1

    def _tell(self, reason: DropReason | None, error: str) -> None:
        backend = self.backend
        log.debug(
            "connection.closed",
            service=self.service.carried.work.service.name,
            client=f"{self.peer[0]} {self.peer[1]}",
            backend=str(self.backend_endpoint) if self.backend_endpoint else None,
            bytes_in=self.client.moved,
            bytes_out=backend.moved if backend else 0,
            duration_s=round(self.service.loop.now_s - self.began_s, 6),
            tried=len(self.tried),
            reason=reason.value if reason else None,
            error=error or None,
        )


def _unsent_bytes(sock: SocketType) -> int:
    """Return how much the kernel still has to send, or to have acknowledged (tcp(7), SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
