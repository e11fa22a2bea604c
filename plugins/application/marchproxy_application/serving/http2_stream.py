"""A stream of HTTP/2: one request of a client, and what waits of its answer until the client's windows open."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.http2.answers import block_of, lines_block, trailers_block
from marchproxy_application.http2.pieces import pieces_of
from marchproxy_application.http2.websocket import accept_of, new_key
from marchproxy_application.serving.exchange import Exchange
from marchproxy_application.serving.http2_protocol import CANCEL, INTERNAL_ERROR
from marchproxy_application.serving.own_answers import own_answer
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from marchproxy_application.backends.connection import BackendConnection
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.http2_connection import Http2Connection
    from marchproxy_application.serving.preparing import PreparedAnswer, PreparedRequest
    from marchproxy_application.serving.service import HttpService
    from marchproxy_core.relay.accepting import Address

_MOST_WAITING: Final = 1 << 16
"""How much of one answer may wait before its backend is held."""
_GRACE_S: Final = 5.0


@final
class Http2Stream:
    """One request and its answer; see ``Client``."""

    __slots__ = (
        "_early",
        "_has_body",
        "_key",
        "_out",
        "_trailers",
        "_trailers_out",
        "_unacknowledged",
        "_waiting",
        "address",
        "connection",
        "exchange",
        "has_ended",
        "is_queued",
        "moved_s",
        "number",
        "request_over",
        "scheme",
        "unsent",
        "version",
    )

    def __init__(self, connection: Http2Connection, number: int, *, request_over: bool) -> None:
        """Begin with a request's head.

        Args:
            connection: That it came on.
            number: Its own.
            request_over: Whether that head was all.
        """
        self.connection = connection
        self._out = connection.outgoing
        self.number = number
        self.address = connection.address
        self.scheme = connection.scheme
        self.version = "2"
        self.exchange: Exchange | None = None
        self.request_over = request_over
        """Whether the client has ended the stream on its side."""
        self.has_ended = False
        """Whether we have."""
        self.unsent = 0
        """Bytes of the answer that wait for the client's windows."""
        self.moved_s = connection.loop.now_s
        """When the client last took or sent something."""
        self.is_queued = False
        self._waiting: deque[bytes | memoryview] = deque()
        self._has_body = False
        self._trailers: list[Field] = []
        self._trailers_out: list[Field] | None = None
        """Those behind the answer, once it has ended; ``[]``: none."""
        self._unacknowledged = 0
        self._early: list[bytes] = []
        self._key = b""

    def begin(self, service: HttpService, prepared: PreparedRequest) -> None:
        """Have the request answered."""
        self.exchange = exchange = Exchange(self, service, prepared)
        if prepared.head.upgrade:
            if not prepared.upgrade:
                service.began(exchange)
                exchange.refuse(
                    DropReason.UPGRADE_REFUSED, status=501
                )  # RFC 8441 leaves it to RFC 9110, 15.6.2
                return
            self._key = new_key()
            exchange.more = b"Sec-WebSocket-Key: %b\r\n" % self._key
        else:
            self._has_body = not exchange.request_over
        exchange.start()

    # What comes from the client.

    def received(self, data: bytes, size: int) -> None:
        """Pass on a part of the request's body.

        Args:
            data: The bytes.
            size: How many of the client's windows they have taken, padding included.
        """
        self.moved_s = self.connection.loop.now_s
        exchange = self.exchange
        if exchange is None:
            self._out.acknowledge(self.number, size)
            return
        if self._key and not exchange.is_upgraded:
            self._early.append(data)
            self._unacknowledged += size
            return
        if data:
            exchange.request_body(data)
        if self.exchange is exchange and exchange.holds_request:
            self._unacknowledged += size
        else:
            self._out.acknowledge(self.number, size)

    def trailed(self, trailers: list[Field]) -> None:
        """Keep the fields behind the request's body."""
        self._trailers = trailers

    def request_ended(self) -> None:
        """Take note that the client has ended the stream."""
        if self.request_over:
            return
        self.request_over = True
        exchange = self.exchange
        if exchange is not None and exchange.is_upgraded:
            if exchange.backend is not None:
                exchange.backend.shut_down()
        elif exchange is not None and self._has_body:
            exchange.request_end(self._trailers)
        self._leave_if_over()

    def reset(self, code: int) -> None:
        """End the stream before its time; the exchange is over, or is told by whoever calls."""
        if not self.has_ended or not self.request_over:
            self.has_ended = self.request_over = True
            self._out.reset(self.number, code)

    def gone(self) -> None:
        """End, since the stream was reset, or the connection is closed."""
        self.has_ended = self.request_over = True
        self._forget_answer()
        exchange, self.exchange = self.exchange, None
        self._acknowledge_all()
        if exchange is not None:
            exchange.client_gone()
        self._leave_if_over()

    def go_away(self) -> None:
        """Tell a WebSocket that the server goes away."""
        if self.exchange is not None:
            self.exchange.go_away()

    def look(self, now_s: float) -> float:
        """Look whether time is up; return when to look again."""
        settings = self.connection.settings
        if self.unsent:
            due_s = self.moved_s + settings.write_timeout
            if now_s >= due_s:
                self.connection.abandon(self, CANCEL, DropReason.WRITE_TIMEOUT)
                return now_s + 1.0
            return due_s
        exchange = self.exchange
        if exchange is None:
            return now_s + settings.read_timeout
        due_s = exchange.look(now_s)
        if self.exchange is not exchange:
            return now_s + 1.0
        if not self.request_over and self._has_body and not self._unacknowledged:
            body_due_s = self.moved_s + settings.read_timeout
            if now_s >= body_due_s:
                exchange.refuse(DropReason.READ_TIMEOUT)
            elif self._is_too_slow(exchange, now_s):
                exchange.refuse(DropReason.CLIENT_TOO_SLOW)
            due_s = min(due_s, body_due_s)
        return max(due_s, now_s + 0.25)

    # What goes to the client.

    @property
    def is_full(self) -> bool:
        """Whether so much of the answer waits that there should not come more."""
        return self.unsent > _MOST_WAITING

    @property
    def ends(self) -> tuple[Address, Address]:
        """Who it is and where it connected to."""
        return self.connection.ends

    def origin_of(self, host: bytes) -> bytes:
        """Return the lines that tell a backend where its requests come from."""
        return self.connection.origin_of(host)

    def answer(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, body: bytes, *, is_over: bool
    ) -> None:
        """Send the head of the answer and what there is of its body."""
        if self._key and 200 <= answer.head.status < 300:
            self._fail_upgrade(exchange, "WebSocket wanted, no 101 came")
            return
        ends = is_over and not body
        self._out.head(self, block_of(answer.start) + lines_block(more), ends=ends)
        if body:
            self._send(body)
        if is_over and not ends:
            self._end([])

    def answer_interim(self, answer: PreparedAnswer) -> None:
        """Send a head that another one follows."""
        if not self.has_ended:
            self._out.head(self, block_of(answer.start), ends=False)

    def answer_upgrade(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, backend: BackendConnection
    ) -> None:
        """Send 200 (RFC 8441, section 5), and let everything through from here on."""
        if answer.head.first(b"sec-websocket-accept") != accept_of(self._key):
            self._fail_upgrade(exchange, "Sec-WebSocket-Accept is wrong")
            return
        self._out.head(self, block_of(answer.start, 200) + lines_block(more), ends=False)
        exchange.request_over = False
        rest = backend.become_tunnel()
        if rest:
            exchange.answer_body(rest)
        early, self._early = self._early, []
        for data in early:
            if not exchange.is_over:
                exchange.request_body(data)
        if not exchange.holds_request:
            self._acknowledge_all()
        if self.request_over and exchange.backend is not None:
            exchange.backend.shut_down()

    def answer_body(self, data: bytes) -> None:
        """Send more of the body."""
        if data:
            self._send(data)

    def answer_end(self, data: bytes, trailers: list[Field]) -> None:
        """Send the last of the body."""
        if data:
            self._send(data)
        self._end(trailers)

    def answer_cut(self) -> None:
        """Reset, so that nobody takes what was sent for the whole answer."""
        if not self.has_ended and self._trailers_out is None:
            self.reset(INTERNAL_ERROR)

    def answer_alone(self, status: int, reason: DropReason) -> None:
        """Answer what is no request of any service."""
        connection = self.connection
        service = connection.front.owner
        request_id = service.next_id()
        answer, body = own_answer(status, request_id)
        service.carried.drop(reason)
        more = lines_block(b"X-Request-Id: %b\r\n" % request_id)
        self._out.head(self, block_of(answer.start) + more, ends=False)
        self._send(body)
        self._end([])
        service.refused(self, request_id, status, reason)
        self._leave_if_over()

    def request_wanted(self) -> None:
        """Go on with the request's body."""
        self._acknowledge_all()

    def over(self, exchange: Exchange) -> None:
        """Have what waits sent, then leave."""
        if self.exchange is exchange:
            self.exchange = None
        self._acknowledge_all()
        self._leave_if_over()

    # Towards the windows.

    def send_frame(self, most: int) -> int:
        """Send the next frame of the answer; return how many bytes of a body it had.

        Args:
            most: How many it may have, 1 or more.
        """
        if not self.unsent:
            self._send_last(b"")
            return 0
        piece = self._next_piece(most)
        self.unsent -= len(piece)
        self.moved_s = self.connection.loop.now_s
        if not self.unsent and self._trailers_out is not None:
            self._send_last(piece)
        else:
            self._out.data(self, piece, ends=False)
        exchange = self.exchange
        if exchange is not None and exchange.is_held and self.unsent <= _MOST_WAITING // 2:
            exchange.client_drained()
        return len(piece)

    @property
    def has_more(self) -> bool:
        """Whether there is a frame to send."""
        return self.unsent > 0 or (self._trailers_out is not None and not self.has_ended)

    def _next_piece(self, most: int) -> bytes:
        pieces = pieces_of(self._waiting, most)
        if len(pieces) == 1 and isinstance(pieces[0], bytes):
            return pieces[0]
        return b"".join(pieces)

    def _send(self, data: bytes) -> None:
        if self.has_ended:
            return
        if not self.unsent:
            self.moved_s = self.connection.loop.now_s
        self._waiting.append(data)
        self.unsent += len(data)
        self._out.queue(self)

    def _end(self, trailers: list[Field]) -> None:
        if not self.has_ended:
            self._trailers_out = trailers
            self._out.queue(self)

    def _send_last(self, piece: bytes) -> None:
        trailers = self._trailers_out
        if trailers:
            if piece:
                self._out.data(self, piece, ends=False)
            self._out.head(self, trailers_block(trailers), ends=True)
        else:
            self._out.data(self, piece, ends=True)
        self._leave_if_over()

    def _leave_if_over(self) -> None:
        if self.exchange is None and self.has_ended:
            self.connection.leave(self)

    def _forget_answer(self) -> None:
        self._waiting.clear()
        self.unsent = 0
        self._trailers_out = None

    def _acknowledge_all(self) -> None:
        size, self._unacknowledged = self._unacknowledged, 0
        if size:
            self._out.acknowledge(self.number, size)

    def _fail_upgrade(self, exchange: Exchange, detail: str) -> None:
        """Answer an extended CONNECT whose backend changed no protocol: 200 would say that it did."""
        exchange.status, exchange.origin, exchange.detail = 502, "proxy", detail
        answer, body = own_answer(502, exchange.request_id)
        more = lines_block(b"X-Request-Id: %b\r\n" % exchange.request_id)
        self._out.head(self, block_of(answer.start) + more, ends=False)
        self._early.clear()
        self._send(body)
        self._end([])
        self._key = b""
        exchange.refuse(DropReason.BAD_ANSWER)

    def _is_too_slow(self, exchange: Exchange, now_s: float) -> bool:
        rate, took_s = exchange.service.http.min_client_rate, now_s - exchange.began_s
        return bool(rate) and took_s > _GRACE_S and exchange.bytes_in < rate * took_s
