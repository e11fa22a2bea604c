"""One connection to a backend, in HTTP/1.1: a request goes out, its answer is read strictly, the next one may come."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, final

from marchproxy_application.backends.answer_reading import AnswerReader
from marchproxy_application.backends.opening import HEAD, IDLE, TUNNEL
from marchproxy_application.http1.chunks import as_chunk, last_chunk

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.backends.beginning import Verified
    from marchproxy_application.backends.pool import Pool
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.preparing import PreparedAnswer
    from marchproxy_application.streams import Stream


@final
class BackendConnection(AnswerReader):
    """A connection that :class:`Pool` opened; closes itself when it is of no more use."""

    __slots__ = ("_codes_chunks", "_request_ended", "idle_since_s")

    def __init__(self, pool: Pool, sock: SocketType, exchange: Exchange, verified: Verified | None) -> None:
        """Take over a socket that connects.

        Args:
            pool: Whose it is.
            sock: The socket.
            exchange: The request that waits for it.
            verified: Whom the backend has to be; None: TLS is not spoken.
        """
        super().__init__(pool, sock, exchange, verified)
        self.idle_since_s = self.loop.now_s
        self._request_ended = True
        self._codes_chunks = False
        """The request's body is written in chunks."""

    def begin(self, exchange: Exchange) -> None:
        """Send a request's head; the connection is free."""
        self.exchange = exchange
        self._state = HEAD
        self.read_little()
        self._request_ended = False
        self.requests += 1
        exchange.backend_ready(self)

    def on_opened(self, exchange: Exchange | None) -> None:
        """Serve the request that waited for the connection, or have the pool keep it for another one."""
        if exchange is None:
            self._state = IDLE
            self.pool.give_back(self)
        else:
            self.begin(exchange)

    def is_alive(self) -> bool:
        """Ask the kernel whether the backend has closed an idle connection, or said something out of turn."""
        if self.secured is not None:
            return self.secured.is_quiet()
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def sink(self) -> Stream | None:
        """Where a request's body may be spliced to; None while something waits, or goes through TLS."""
        return self if not self.is_secure and not self.unsent else None

    def send_request(self, exchange: Exchange, body: bytes | bytearray) -> None:
        """Write a request's head and what there is of its body; see ``Answerer``."""
        prepared = exchange.prepared
        self._codes_chunks = prepared.head.is_chunked
        head = b"%b%bX-Request-Id: %b\r\n%b\r\n" % (
            prepared.start if exchange.caching is None else exchange.caching.start_of(prepared),
            exchange.client.origin_of(prepared.head.host),
            exchange.request_id,
            exchange.more,
        )
        if body:
            head += as_chunk(bytes(body)) if self._codes_chunks else body
        if exchange.request_over:
            self._request_ended = True
            if self._codes_chunks:
                head += last_chunk(exchange.trailers)
        self.write(head)

    def send_body(self, data: bytes) -> None:
        """Write more of the request's body, or of what goes through a tunnel."""
        if data:
            self.write(as_chunk(data) if self._codes_chunks else data)

    def end_request(self, trailers: list[Field]) -> None:
        """Write the end of the request's body."""
        self._request_ended = True
        if self._codes_chunks:
            self.write(last_chunk(trailers))

    def abandon(self, exchange: Exchange) -> None:
        """Close, since nobody wants the answer any more; unless it is whole, and another request has the connection."""
        if self.exchange is exchange:
            self.exchange = None
            self.close()

    def shut_down(self) -> None:
        """Tell the backend of a tunnel that nothing more comes."""
        try:
            self.end_writing()
        except OSError as error:
            self.on_broken(error)

    def on_upgrade(self, exchange: Exchange, answer: PreparedAnswer) -> None:
        """Have the exchange change the protocol, if that was asked for."""
        exchange.answer_upgrade(answer, self)

    def become_tunnel(self) -> bytes:
        """Read on without a meaning, after 101; return what has come behind the head."""
        self._state = TUNNEL
        self._codes_chunks = False
        rest, self._buffer = self._buffer, b""
        return rest

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once, and tell the pool."""
        if not self.closed:
            super().close(reset=reset)
            self.pool.forget(self)

    def on_drained(self) -> None:
        """Let the request's body go on."""
        if self.exchange is not None:
            self.exchange.backend_drained()

    def on_whole(self) -> None:
        """Be free again, or close: the answer is whole."""
        self._state = IDLE
        self.exchange = None
        if self.secured is not None and self.requests == 1:
            self.pool.keep_session(self)
        if self._is_last or not self._request_ended or self.unsent:
            self.close()
        else:
            self.pool.give_back(self)
