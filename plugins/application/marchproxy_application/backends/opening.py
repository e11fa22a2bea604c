"""How a connection to a backend comes to be, and how it fails: connecting, PROXY header, TLS, deadline, flush."""

from __future__ import annotations

import enum
import ssl
from typing import TYPE_CHECKING, Final

from marchproxy_application.backends.beginning import proxy_header
from marchproxy_application.streams import Stream, what
from marchproxy_application.tls.streams import cause_of
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.backends.beginning import Verified
    from marchproxy_application.backends.pool import Pool
    from marchproxy_application.serving.exchange import Exchange


class State(enum.Enum):
    """What comes next from the backend."""

    CONNECTING = enum.auto()
    SHAKING = enum.auto()
    """The TLS handshake goes on."""
    HEAD = enum.auto()
    COUNTED = enum.auto()
    CHUNKED = enum.auto()
    TO_THE_END = enum.auto()
    TUNNEL = enum.auto()
    IDLE = enum.auto()


# By these names: looking a member up in its class costs eight times as much (CPython 3.11).
CONNECTING: Final = State.CONNECTING
SHAKING: Final = State.SHAKING
HEAD: Final = State.HEAD
COUNTED: Final = State.COUNTED
CHUNKED: Final = State.CHUNKED
TO_THE_END: Final = State.TO_THE_END
TUNNEL: Final = State.TUNNEL
IDLE: Final = State.IDLE


class Opening(Stream):
    """Base of a connection in HTTP/1.1: from its socket to :meth:`on_opened`; fails the request that waits for it."""

    __slots__ = ("_state", "exchange", "pool", "requests", "verified")

    def __init__(self, pool: Pool, sock: SocketType, exchange: Exchange, verified: Verified | None) -> None:
        """Take over a socket that connects; the arguments are those of ``BackendConnection``."""
        super().__init__(pool.service.loop, sock)
        self.pool = pool
        self.verified = verified
        self.exchange: Exchange | None = exchange
        self.writable = False
        self.requests = 0
        """How many were sent on it."""
        self._state = State.CONNECTING

    def start(self) -> None:
        """See to it that connecting does not take for ever."""
        self.loop.expire_at(self, self.loop.now_s + self.pool.service.carried.settings.connect_timeout)

    def on_opened(self, exchange: Exchange | None) -> None:
        """Serve the request that waited for the connection; None: it waits no more."""
        raise NotImplementedError

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        if self._state is SHAKING:
            self._shake()
            return
        if self._state is not CONNECTING:
            super().on_event(events)
            return
        error = self.socket_error()
        if error is not None:
            self._fail(DropReason.BACKEND_REFUSED, what(error), sent=False)
            return
        self.writable = True
        header = proxy_header(self.pool.service, self.exchange) if self.exchange is not None else b""
        if header:
            self.write(header)  # in one piece: a new connection's buffer is empty
        if self.verified is None:
            self._established()
            if not self.closed:
                super().on_event(events)
        elif not self.closed:
            self._state = SHAKING
            self._shake()

    def on_deadline(self, now_s: float) -> float | None:
        """Give up connecting."""
        del now_s
        if self._state is CONNECTING or self._state is SHAKING:
            limit_s = self.pool.service.carried.settings.connect_timeout
            self._fail(DropReason.BACKEND_TIMEOUT, f"no answer within {limit_s:g} s", sent=False)
        return None

    def on_flushed(self) -> None:
        """End at once, since the backend is flushed."""
        exchange, self.exchange = self.exchange, None
        connecting = self._state is CONNECTING or self._state is SHAKING
        self.pool.connected(exchange)
        self.close(reset=True)
        if exchange is not None:
            exchange.backend_failed(DropReason.FLUSHED, "backend flushed", sent=not connecting)

    def _shake(self) -> None:
        """Go on with the TLS handshake."""
        verified = self.verified
        assert verified is not None
        try:
            secured = self.secured or self.secure(
                verified.context, server_name=verified.name, session=self.pool.session_of(verified)
            )
            if not secured.shake():
                return
        except (OSError, ValueError) as error:
            self._unverified(error, is_ours=verified.is_ours)
            return
        self.readable = True  # edge-triggered: what has come with the handshake is told by nobody
        self._established()
        if not self.closed:
            self.on_readable()

    def _unverified(self, error: OSError | ValueError, *, is_ours: bool) -> None:
        exchange, self.exchange = self.exchange, None
        self.pool.connected(exchange)
        self.close(reset=True)
        if exchange is None:
            return
        if is_ours or not isinstance(error, ValueError | ssl.SSLError):
            exchange.backend_failed(DropReason.BACKEND_TLS_FAILED, cause_of(error), sent=False)
        else:
            # The client chose the name: what it asks for must not put a backend in a bad light.
            exchange.backend_lacking(DropReason.BACKEND_TLS_FAILED, cause_of(error))

    def _established(self) -> None:
        """Serve the request that waits for the connection."""
        self.loop.expire_at(self, None)
        exchange = self.exchange
        self.exchange = None
        self.pool.connected(exchange)
        self.on_opened(exchange)

    def _fail(self, reason: DropReason, error: str, *, sent: bool, by_answer: bool = False) -> None:
        """End before there was an answer."""
        exchange, self.exchange = self.exchange, None
        fresh = self.requests <= 1
        self.pool.connected(exchange)
        self.close(reset=True)
        if exchange is not None:
            exchange.backend_failed(reason, error, sent=sent, was_used=not fresh, answered=by_answer)
