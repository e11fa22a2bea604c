"""How requests of HTTP/1.1 are read: one after the other, heads strictly, bodies as they are delimited, or spliced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marchproxy_application.http1.counted import CountedReader
from marchproxy_application.http1.refusals import Refusal, Refused
from marchproxy_application.http1.request import end_of_head
from marchproxy_application.serving.answer_writing import AnswerWriter
from marchproxy_application.serving.http1_state import ANSWER, BODY, HEAD, TUNNEL
from marchproxy_application.splicing import LEAST_BYTES, pour

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.http1.chunks import ChunkReader
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.front import Front, Routed
    from marchproxy_application.streams import Stream
    from marchproxy_core.relay.accepting import Address

_MOST_READS: Final = 8
GRACE_S: Final = 5.0
"""How long a client may be slow before its rate is looked at."""
_PREFACE_START: Final = b"PRI * HTTP/2.0\r\n\r\n"
"""No request of HTTP/1.1 can begin so (RFC 9113, section 3.4)."""


class RequestReader(AnswerWriter):
    """Base of a connection in HTTP/1.1: what comes from the client."""

    __slots__ = ("_is_busy", "body", "buffer", "exchange", "heard", "heard_since_s", "state")

    def __init__(self, front: Front, sock: SocketType, peer: Address) -> None:
        """Take over an accepted, non-blocking socket."""
        super().__init__(front, sock, peer)
        self.exchange: Exchange | None = None
        self.state = HEAD
        self.buffer = b""
        """What has come and was not read yet."""
        self.body: ChunkReader | CountedReader | None = None
        """Of the request whose body is being read."""
        self.heard_since_s = self.loop.now_s
        """Since when a head or body comes; or no request, or no more of it, has."""
        self.heard = 0
        """Bytes of it that have come."""
        self._is_busy = False

    def on_head(self, routed: Routed) -> None:
        """Begin with a request."""
        raise NotImplementedError

    def on_preface(self, data: bytes) -> None:
        """Go on in HTTP/2, since that is what the client speaks."""
        raise NotImplementedError

    def on_refused(self, refusal: Refusal) -> None:
        """End, since nothing that follows can be read."""
        raise NotImplementedError

    def on_end(self) -> None:
        """Handle the end of what the client sends."""
        raise NotImplementedError

    @property
    def min_rate(self) -> int:
        """Bytes a second that a client has to come to; 0: it may be as slow as it likes."""
        return self.front.owner.http.min_client_rate

    def on_readable(self) -> None:
        """Read requests, unless one is being answered."""
        for _ in range(_MOST_READS):
            if not self.readable or self._is_held():
                return
            exchange = self.exchange
            if exchange is not None and self._spliceable(exchange) >= LEAST_BYTES:
                sink = exchange.request_sink
                if sink is not None:
                    if not self._pour(exchange, sink):
                        return
                    continue
            data = self.read()
            if data is None:
                return
            if not data:
                self.on_end()
                return
            self._received(data)
            if self.closed:
                return
        if self.readable:
            self.loop.again(self._read_again)

    def _is_held(self) -> bool:
        state = self.state
        if state is HEAD:
            return False
        if state is ANSWER:
            return True
        exchange = self.exchange
        return exchange is not None and exchange.holds_request

    def _spliceable(self, exchange: Exchange) -> int:
        """Return how many bytes come next of which nobody wants to see any."""
        if self.is_secure or self.buffer:
            return 0
        if self.state is BODY and type(self.body) is CountedReader:
            return self.body.left if exchange.service.http.max_body_bytes is None else 0
        if self.state is TUNNEL and exchange.tunnel is not None:
            return 0 if exchange.tunnel.is_closing else exchange.tunnel.from_client.left
        return 0

    def _pour(self, exchange: Exchange, sink: Stream) -> bool:
        """Splice; false when there is no more for now."""
        moved = pour(self, sink, self.front.pipes, self._spliceable(exchange))
        if moved < 0:
            self.on_end()
            return False
        if not moved or self.exchange is not exchange:
            return False
        self.heard += moved
        exchange.request_spliced(moved)
        if exchange.tunnel is not None:
            exchange.tunnel.from_client.skip(moved)
            return True
        body = self.body
        assert type(body) is CountedReader
        body.skip(moved)
        self.heard_since_s = self.loop.now_s if not self.min_rate else self.heard_since_s
        if body.is_over:
            self._end_request(exchange, [])
        return not self.closed

    def _read_again(self) -> None:
        if not self.closed and self.readable:
            self.on_readable()

    def resume_later(self) -> None:
        """Read on in this turn of the loop, but not from within the caller."""
        self.loop.again(self._resume)

    def _resume(self) -> None:
        if self.closed:
            return
        if self.buffer and self.state in (HEAD, BODY):
            self._advance()
        if not self.closed and self.readable:
            self.on_readable()

    def _received(self, data: bytes) -> None:
        state = self.state
        if state is HEAD:
            if not self.buffer:
                routed = self.front.known(data)
                if routed is not None:
                    self.on_head(routed)
                    return
                self.heard_since_s = self.loop.now_s
                self.heard = 0
                self.buffer = data
            else:
                self.buffer += data
            self.heard += len(data)
            self._advance()
        elif state is BODY:
            self.heard += len(data)
            self.heard_since_s = self.loop.now_s if not self.min_rate else self.heard_since_s
            self.buffer = data
            self._advance()
        elif state is TUNNEL:
            assert self.exchange is not None
            self.exchange.request_body(data)
        else:
            self.throw_away(data)

    def _advance(self) -> None:
        """Make what can be made of the buffer; not within itself, though answers that come at once end in here."""
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self.buffer and not self.closed:
                if self.state is HEAD:
                    if not self._read_head():
                        return
                elif self.state is BODY and not self._is_held():
                    self._read_body()
                else:
                    return
        except Refused as refused:
            self.on_refused(refused.refusal)
        finally:
            self._is_busy = False

    def _read_head(self) -> bool:
        """Read a whole head; false when there is none yet."""
        data = self.buffer
        if data.startswith(_PREFACE_START) and not self.unsent:
            self.on_preface(data)
            return False
        if data.startswith(b"\r\n"):
            self.buffer = data = data[2:]  # RFC 9112, section 2.2: an empty line before it is forgiven
            return bool(data)
        http = self.front.owner.http
        end = end_of_head(data, http.max_header_bytes)
        if not end:
            longest_s = self.carried.settings.read_timeout
            if self.min_rate:
                longest_s = min(longest_s, GRACE_S)
            self.loop.expire_by(self, self.heard_since_s + longest_s)
            return False
        block, self.buffer = data[:end], data[end:]
        routed = self.front.known(block) or self.front.routed(block)
        if len(routed.head.fields) > http.max_headers:
            raise Refused(Refusal.HEAD_TOO_LARGE)
        self.on_head(routed)
        return True

    def _read_body(self) -> None:
        exchange, body = self.exchange, self.body
        assert exchange is not None
        assert body is not None
        data, self.buffer = self.buffer, b""
        for piece in body.feed(data):
            exchange.request_body(piece)
            if self.exchange is not exchange:
                return
        if body.is_over:
            self.buffer = body.rest
            self._end_request(exchange, body.trailers)

    def _end_request(self, exchange: Exchange, trailers: list[Field]) -> None:
        self.state = ANSWER
        self.body = None
        exchange.request_end(trailers)
