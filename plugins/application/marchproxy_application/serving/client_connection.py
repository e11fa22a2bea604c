"""A client's connection, whatever is spoken on it: who is there, what it counts for, and how it is left."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from marchproxy_application.http1.writing import origin_lines
from marchproxy_application.streams import Stream

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.serving.front import Front
    from marchproxy_core.drops import DropReason
    from marchproxy_core.relay.accepting import Address

LINGER_S: Final = 2.0
"""How long what a client still sends is read and thrown away, so that it reads our last answer (RFC 9112, 9.6)."""
_LINGER_BYTES: Final = 1 << 20
_BROKEN: Final = select.EPOLLERR | select.EPOLLHUP


class ClientConnection(Stream):
    """Base of what a front has let in; counted as open until it is closed."""

    __slots__ = (
        "_lingered",
        "_origin",
        "_origin_host",
        "address",
        "asked",
        "carried",
        "front",
        "peer",
        "port",
        "proxied",
        "scheme",
    )

    def __init__(self, front: Front, sock: SocketType, peer: Address) -> None:
        """Take over an accepted, non-blocking socket."""
        super().__init__(front.loop, sock)
        self.front = front
        self.carried = front.carried
        """The service that it counts for."""
        self.peer = peer
        """Who the client is: its address, or what its PROXY header says."""
        self.proxied: Address | None = None
        """Where it connected to, as its PROXY header says."""
        self.address = peer[0].partition("%")[0].encode("ascii")
        self.scheme = b"http"
        self.port = front.endpoint.port
        self.asked: tuple[str | None, bool] | None = None
        """What it had to prove, as ``Admitter.asked``."""
        self._origin_host: bytes | None = None
        self._origin = b""
        self._lingered = 0

    def start(self) -> None:
        """Count the connection, and see to it that a request comes in time."""
        self.carried.opened()
        self.loop.expire_at(self, self.loop.now_s + self.carried.settings.read_timeout)

    def go_on_from(self, before: ClientConnection) -> None:
        """Take the socket over from another one, which forgets it, with all that is known of the client."""
        self.adopt(before)
        self.carried = before.carried
        self.scheme, self.port, self.proxied = before.scheme, before.port, before.proxied
        self.address, self.asked = before.address, before.asked

    def go_away(self) -> None:
        """Be closed as soon as what has begun is over; a subclass's to do."""
        raise NotImplementedError

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        super().on_event(events)
        if events & _BROKEN and not self.closed and not self.readable:
            self.on_broken(self.socket_error() or OSError())

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once, and count the end of the connection."""
        if not self.closed:
            super().close(reset=reset)
            self.carried.closed()
            self.front.connections.discard(self)

    def cut(self, reason: DropReason | None) -> None:
        """End at once; the reason is counted."""
        if reason is not None:
            self.carried.drop(reason)
        self.close(reset=True)

    @property
    def ends(self) -> tuple[Address, Address]:
        """Who it is and where it connected to."""
        return self.peer, self.proxied or self.sock.getsockname()

    def origin_of(self, host: bytes) -> bytes:
        """Return the lines that tell a backend where its requests come from."""
        if host != self._origin_host:
            self._origin_host = host
            self._origin = origin_lines(client=self.address, scheme=self.scheme, port=self.port, host=host)
        return self._origin

    def linger(self) -> bool:
        """Say that nothing more comes, and be silent from here on; false when nobody is there to hear it."""
        try:
            self.end_writing()
        except OSError:
            self.close()
            return False
        self.read_to_forget()
        self.loop.expire_at(self, self.loop.now_s + LINGER_S)
        return True

    def throw_away(self, data: bytes) -> None:
        """Take what comes after our last words; who sends too much of it is reset."""
        self._lingered += len(data)
        if self._lingered > _LINGER_BYTES:
            self.close(reset=True)
