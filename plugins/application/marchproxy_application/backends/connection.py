"""One connection to a backend, in HTTP/1.1: a request goes out, its answer is read strictly, the next one may come."""

from __future__ import annotations

import enum
import socket
import ssl
from typing import TYPE_CHECKING, final

from marchproxy_application.backends.beginning import proxy_header
from marchproxy_application.http1.chunks import ChunkReader, as_chunk, last_chunk
from marchproxy_application.http1.refusals import Refused
from marchproxy_application.splicing import LEAST_BYTES, pour
from marchproxy_application.streams import Stream, what
from marchproxy_application.tls.streams import cause_of
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.backends.beginning import Verified
    from marchproxy_application.backends.pool import Pool
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.preparing import PreparedAnswer

_MOST_HEAD_BYTES = 1 << 16
_MOST_READS = 8
"""How often one connection is read before others get their turn."""


class _State(enum.Enum):
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
_CONNECTING, _SHAKING, _HEAD, _COUNTED, _CHUNKED, _TO_THE_END, _TUNNEL, _IDLE = _State


@final
class BackendConnection(Stream):
    """A connection that :class:`Pool` opened; closes itself when it is of no more use."""

    __slots__ = (
        "_buffer",
        "_chunks",
        "_codes_chunks",
        "_is_last",
        "_left",
        "_request_ended",
        "_state",
        "began_s",
        "exchange",
        "idle_since_s",
        "pool",
        "requests",
        "verified",
    )

    def __init__(self, pool: Pool, sock: SocketType, exchange: Exchange, verified: Verified | None) -> None:
        """Take over a socket that connects.

        Args:
            pool: Whose it is.
            sock: The socket.
            exchange: The request that waits for it.
            verified: Whom the backend has to be; None: TLS is not spoken.
        """
        super().__init__(pool.service.loop, sock)
        self.pool = pool
        self.verified = verified
        self.exchange: Exchange | None = exchange
        self.writable = False
        self.idle_since_s = self.began_s = self.loop.now_s
        self.requests = 0
        """How many were sent on it."""
        self._state = _CONNECTING
        self._buffer = b""
        self._left = 0
        self._chunks: ChunkReader | None = None
        self._is_last = False
        """The connection is of no use after this answer."""
        self._request_ended = True
        self._codes_chunks = False
        """The request's body is written in chunks."""

    def start(self) -> None:
        """See to it that connecting does not take for ever."""
        self.loop.expire_at(self, self.loop.now_s + self.pool.service.carried.settings.connect_timeout)

    def begin(self, exchange: Exchange) -> None:
        """Send a request's head; the connection is free."""
        self.exchange = exchange
        self._state = _HEAD
        self.read_little()
        self._request_ended = False
        self.requests += 1
        exchange.backend_ready(self)

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

    def resume(self) -> None:
        """Go on reading, since the client takes more."""
        if self.readable and not self.closed:
            self.on_readable()

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

    def become_tunnel(self) -> bytes:
        """Read on without a meaning, after 101; return what has come behind the head."""
        self._state = _TUNNEL
        self._codes_chunks = False
        rest, self._buffer = self._buffer, b""
        return rest

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once, and tell the pool."""
        if not self.closed:
            super().close(reset=reset)
            self.pool.forget(self)

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        if self._state is _SHAKING:
            self._shake()
            return
        if self._state is not _CONNECTING:
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
            self._state = _SHAKING
            self._shake()

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
        if exchange is None:
            self._state = _IDLE
            self.pool.give_back(self)
        else:
            self.begin(exchange)

    def on_readable(self) -> None:
        """Read the answer, as fast as the client takes it."""
        for _ in range(_MOST_READS):
            exchange = self.exchange
            if exchange is None:
                if self.secured is not None and self.secured.is_quiet():
                    self.readable = False
                else:
                    self.close()  # idle: closed by the backend, or something that nobody asked for
                return
            if not self.readable or exchange.is_held:
                return
            if self._spliceable(exchange) >= LEAST_BYTES and not self.is_secure:
                sink = exchange.answer_sink
                if sink is not None:
                    if not self._pour(exchange, sink):
                        return
                    continue
            data = self.read()
            if data is None:
                return
            if not data:
                self._ended()
                return
            self._received(data)
            if self.closed or self._state is _IDLE:
                return
        if self.readable:
            self.loop.again(self.resume)

    def on_drained(self) -> None:
        """Let the request's body go on."""
        if self.exchange is not None:
            self.exchange.backend_drained()

    def on_broken(self, error: OSError) -> None:
        """End; what the answer had come to is for the exchange to judge."""
        if isinstance(error, ssl.SSLError) and self._state is _HEAD:
            # With TLS 1.3 a backend judges our certificate when for us the handshake is over.
            self._fail(DropReason.BACKEND_TLS_FAILED, cause_of(error), sent=True)
        elif self._state is _HEAD or self._state is _CONNECTING or self.exchange is None:
            self._fail(DropReason.BACKEND_RESET, what(error), sent=True)
        elif self.readable:
            # The backend has reset what we write; its answer may still be here, and is read first (RFC 9112, 9.5).
            self._is_last = True
        else:
            self._cut(what(error))

    def on_deadline(self, now_s: float) -> float | None:
        """Give up connecting."""
        del now_s
        if self._state is _CONNECTING or self._state is _SHAKING:
            limit_s = self.pool.service.carried.settings.connect_timeout
            self._fail(DropReason.BACKEND_TIMEOUT, f"no answer within {limit_s:g} s", sent=False)
        return None

    def on_flushed(self) -> None:
        """End at once, since the backend is flushed."""
        exchange, self.exchange = self.exchange, None
        connecting = self._state is _CONNECTING or self._state is _SHAKING
        self.pool.connected(exchange)
        self.close(reset=True)
        if exchange is not None:
            exchange.backend_failed(DropReason.FLUSHED, "backend flushed", sent=not connecting)

    def _spliceable(self, exchange: Exchange) -> int:
        """Return how many bytes come next of which nobody wants to see any."""
        if self._state is _COUNTED:
            return self._left
        if self._state is _TUNNEL and exchange.tunnel is not None:
            return 0 if exchange.tunnel.is_closing else exchange.tunnel.from_backend.left
        return 0

    def _pour(self, exchange: Exchange, sink: Stream) -> bool:
        """Splice; false when there is no more for now."""
        moved = pour(self, sink, self.pool.service.application.pipes, self._spliceable(exchange))
        if moved < 0:
            self._ended()
            return False
        if not moved or self.exchange is not exchange:
            return False
        exchange.answer_spliced(moved)
        if exchange.tunnel is not None:
            exchange.tunnel.from_backend.skip(moved)
            return True
        self._left -= moved
        if self._left:
            return True
        self._release()
        exchange.answer_end(b"")
        return False

    def _received(self, data: bytes) -> None:
        state = self._state
        if state is _HEAD:
            self._read_head(self._buffer + data if self._buffer else data)
        elif state is _COUNTED:
            self._take_counted(data)
        elif state is _CHUNKED:
            self._take_chunks(data)
        else:
            assert self.exchange is not None
            self.exchange.answer_body(data)

    def _read_head(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        end = data.find(b"\r\n\r\n") + 4
        if (end if end >= 4 else len(data)) > _MOST_HEAD_BYTES:
            self._fail(DropReason.BAD_ANSWER, "its head is too large", sent=True, by_answer=True)
            return
        if end < 4:
            self._buffer = data
            return
        self._buffer = b""
        try:
            answer = self.pool.service.prepared_answer(data[:end], exchange.method)
        except Refused as refused:
            self._fail(DropReason.BAD_ANSWER, refused.refusal.text, sent=True, by_answer=True)
            return
        rest = data[end:]
        head = answer.head
        if head.is_interim:
            exchange.answer_interim(answer)
            if rest and not self.closed and self._state is _HEAD:
                self._read_head(rest)
            return
        if not head.keeps_alive:
            self._is_last = True
        if head.status == 101:
            self._buffer = rest
            exchange.answer_upgrade(answer, self)
        elif head.length is not None:
            self._begin_counted(exchange, answer, rest)
        elif head.is_chunked:
            self._state = _CHUNKED
            self._chunks = ChunkReader()
            exchange.answer_head(answer)
            if rest and not self.closed and self._state is _CHUNKED:
                self._take_chunks(rest)
        else:
            self._state = _TO_THE_END
            exchange.answer_head(answer)
            if rest and not self.closed and self._state is _TO_THE_END:
                exchange.answer_body(rest)

    def _begin_counted(self, exchange: Exchange, answer: PreparedAnswer, rest: bytes) -> None:
        length = answer.head.length
        assert length is not None
        if len(rest) < length:
            self._state = _COUNTED
            self._left = length - len(rest)
            exchange.answer_head(answer, rest)
            return
        if len(rest) > length:
            self._is_last = True  # more than it said: not to be taken for the next answer
            rest = rest[:length]
        self._release()
        exchange.answer_whole(answer, rest)

    def _take_counted(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        left = self._left
        if len(data) < left:
            self._left = left - len(data)
            exchange.answer_body(data)
            return
        if len(data) > left:
            self._is_last = True
            data = data[:left]
        self._release()
        exchange.answer_end(data)

    def _take_chunks(self, data: bytes) -> None:
        chunks, exchange = self._chunks, self.exchange
        assert chunks is not None
        assert exchange is not None
        try:
            for piece in chunks.feed(data):
                exchange.answer_body(piece)
                if self.exchange is not exchange:
                    return
        except Refused as refused:
            self._cut(refused.refusal.text)
            return
        if chunks.is_over:
            if chunks.rest:
                self._is_last = True
            self._chunks = None
            self._release()
            exchange.answer_end(b"", chunks.trailers)

    def _release(self) -> None:
        """Be free again, or close: the answer is whole."""
        self._state = _IDLE
        self.exchange = None
        if self.secured is not None and self.requests == 1:
            self.pool.keep_session(self)
        if self._is_last or not self._request_ended or self.unsent:
            self.close()
        else:
            self.pool.give_back(self)

    def _ended(self) -> None:
        """Handle the end of what the backend sends."""
        exchange = self.exchange
        assert exchange is not None
        if self._state is _HEAD:
            self._fail(DropReason.BACKEND_RESET, "closed before its answer", sent=True)
        elif self._state in (_TO_THE_END, _TUNNEL):
            self.exchange = None
            self.close()
            exchange.answer_end(b"")
        else:
            self._cut("closed within its answer")

    def _fail(self, reason: DropReason, error: str, *, sent: bool, by_answer: bool = False) -> None:
        """End before there was an answer."""
        exchange, self.exchange = self.exchange, None
        fresh = self.requests <= 1
        self.pool.connected(exchange)
        self.close(reset=True)
        if exchange is not None:
            exchange.backend_failed(reason, error, sent=sent, was_used=not fresh, answered=by_answer)

    def _cut(self, error: str) -> None:
        """End within the answer."""
        exchange, self.exchange = self.exchange, None
        self.close(reset=True)
        if exchange is not None:
            exchange.answer_cut(error)
