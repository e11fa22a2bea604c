"""How a backend's answer is read: its head strictly, its body as its head delimits it, long ones by splicing."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from marchproxy_application.backends.opening import (
    CHUNKED,
    CONNECTING,
    COUNTED,
    HEAD,
    IDLE,
    TO_THE_END,
    TUNNEL,
    Opening,
)
from marchproxy_application.http1.chunks import ChunkReader
from marchproxy_application.http1.refusals import Refused
from marchproxy_application.splicing import LEAST_BYTES, pour
from marchproxy_application.streams import what
from marchproxy_application.tls.streams import cause_of
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.backends.beginning import Verified
    from marchproxy_application.backends.pool import Pool
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.preparing import PreparedAnswer
    from marchproxy_application.streams import Stream

_MOST_HEAD_BYTES: Final = 1 << 16
_MOST_READS: Final = 8
"""How often one connection is read before others get their turn."""


class AnswerReader(Opening):
    """Base of a connection in HTTP/1.1: what comes from the backend goes to the exchange that asked."""

    __slots__ = ("_buffer", "_chunks", "_is_last", "_left")

    def __init__(self, pool: Pool, sock: SocketType, exchange: Exchange, verified: Verified | None) -> None:
        """Take over a socket that connects; the arguments are those of ``BackendConnection``."""
        super().__init__(pool, sock, exchange, verified)
        self._buffer = b""
        self._left = 0
        self._chunks: ChunkReader | None = None
        self._is_last = False
        """The connection is of no use after this answer."""

    def resume(self) -> None:
        """Go on reading, since the client takes more."""
        if self.readable and not self.closed:
            self.on_readable()

    def on_whole(self) -> None:
        """Be free again, or close: the answer is whole."""
        raise NotImplementedError

    def on_upgrade(self, exchange: Exchange, answer: PreparedAnswer) -> None:
        """Hand a 101 on; what came behind it is in the buffer."""
        raise NotImplementedError

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
            if self.closed or self._state is IDLE:
                return
        if self.readable:
            self.loop.again(self.resume)

    def on_broken(self, error: OSError) -> None:
        """End; what the answer had come to is for the exchange to judge."""
        if isinstance(error, ssl.SSLError) and self._state is HEAD:
            # With TLS 1.3 a backend judges our certificate when for us the handshake is over.
            self._fail(DropReason.BACKEND_TLS_FAILED, cause_of(error), sent=True)
        elif self._state is HEAD or self._state is CONNECTING or self.exchange is None:
            self._fail(DropReason.BACKEND_RESET, what(error), sent=True)
        else:
            self._cut(what(error))

    def on_write_broken(self, error: OSError) -> None:
        """Write no more, and read what may have come before the reset: a refusal, as a rule (RFC 9112, section 9.5)."""
        if self._state is CONNECTING or self.exchange is None or self.is_secure:
            self.on_broken(error)
            return
        self._is_last = True
        self.write_no_more()
        self.gone = self.readable = True
        self.loop.again(self.resume)

    def _spliceable(self, exchange: Exchange) -> int:
        """Return how many bytes come next of which nobody wants to see any."""
        if self._state is COUNTED:
            return self._left
        if self._state is TUNNEL and exchange.tunnel is not None:
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
        self.on_whole()
        exchange.answer_end(b"")
        return False

    def _received(self, data: bytes) -> None:
        state = self._state
        if state is HEAD:
            self._read_head(self._buffer + data if self._buffer else data)
        elif state is COUNTED:
            self._take_counted(data)
        elif state is CHUNKED:
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
            if rest and not self.closed and self._state is HEAD:
                self._read_head(rest)
            return
        if not head.keeps_alive:
            self._is_last = True
        if head.status == 101:
            self._buffer = rest
            self.on_upgrade(exchange, answer)
        elif head.length is not None:
            self._begin_counted(exchange, answer, rest)
        elif head.is_chunked:
            self._state = CHUNKED
            self._chunks = ChunkReader()
            exchange.answer_head(answer)
            if rest and not self.closed and self._state is CHUNKED:
                self._take_chunks(rest)
        else:
            self._state = TO_THE_END
            exchange.answer_head(answer)
            if rest and not self.closed and self._state is TO_THE_END:
                exchange.answer_body(rest)

    def _begin_counted(self, exchange: Exchange, answer: PreparedAnswer, rest: bytes) -> None:
        length = answer.head.length
        assert length is not None
        if len(rest) < length:
            self._state = COUNTED
            self._left = length - len(rest)
            exchange.answer_head(answer, rest)
            return
        if len(rest) > length:
            self._is_last = True  # more than it said: not to be taken for the next answer
            rest = rest[:length]
        self.on_whole()
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
        self.on_whole()
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
            self.on_whole()
            exchange.answer_end(b"", chunks.trailers)

    def _ended(self) -> None:
        """Handle the end of what the backend sends."""
        exchange = self.exchange
        assert exchange is not None
        if self._state is HEAD:
            self._fail(DropReason.BACKEND_RESET, "closed before its answer", sent=True)
        elif self._state in (TO_THE_END, TUNNEL):
            self.exchange = None
            self.close()
            exchange.answer_end(b"")
        else:
            self._cut("closed within its answer")

    def _cut(self, error: str) -> None:
        """End within the answer."""
        exchange, self.exchange = self.exchange, None
        self.close(reset=True)
        if exchange is not None:
            exchange.answer_cut(error)
