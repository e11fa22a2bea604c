"""A stream of HTTP/2 towards a backend: one request, what waits of it until the backend's windows open, its answer."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.backends.http2_frames import (
    FLOW_CONTROL_ERROR,
    PROTOCOL_ERROR,
    name_of,
    window_frame,
)
from marchproxy_application.backends.http2_heads import (
    TE_TRAILERS,
    answer_block,
    lines_block_again,
    read_answer,
    request_block,
    wants_trailers,
)
from marchproxy_application.backends.http2_outgoing import STREAM_WINDOW
from marchproxy_application.http1.refusals import Refused
from marchproxy_application.http2.answers import field_block, lines_block, trailers_block
from marchproxy_application.http2.heads import Malformed, read_trailers
from marchproxy_application.http2.pieces import pieces_of
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_application.backends.http2_connection import Http2BackendConnection
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.http2.heads import Header
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.preparing import PreparedAnswer
    from marchproxy_application.streams import Stream

_MOST_WAITING: Final = 1 << 16
"""How much of a request may wait before its client is held."""
CANCEL: Final = 0x8
REFUSED_STREAM: Final = 0x7


@final
class BackendStream:
    """One request; see ``Answerer``."""

    __slots__ = (
        "_answer",
        "_first",
        "_is_pending",
        "_left",
        "_trailers",
        "_unacknowledged",
        "_waiting",
        "_window_left",
        "began_s",
        "connection",
        "exchange",
        "is_queued",
        "number",
        "request_over",
        "requests",
        "unsent",
        "was_quiet",
        "window",
    )

    def __init__(self, connection: Http2BackendConnection, exchange: Exchange) -> None:
        """Have sent nothing.

        Args:
            connection: That has room for it.
            exchange: Whose request it is.
        """
        self.connection = connection
        self.exchange: Exchange | None = exchange
        self.requests = connection.requests
        self.number = 0
        """Its own; 0 before the head was sent."""
        self.began_s = connection.loop.now_s
        self.was_quiet = connection.is_quiet
        """Whether the connection had been idle: it may have been closed for that, not for this request."""
        self.window = connection.out.stream_window
        """How much the backend takes of the body."""
        self.request_over = False
        """Whether the end of the request was sent."""
        self.unsent = 0
        self.is_queued = False
        self._waiting: deque[bytes | memoryview] = deque()
        self._trailers: list[Field] | None = None
        """Those behind the request, once it has ended; ``[]``: none."""
        self._answer: PreparedAnswer | None = None
        self._is_pending = False
        """The answer's head is still to be passed on: the rest may come in the same breath."""
        self._first = b""
        self._left: int | None = None
        """Bytes of the answer that are to come; None: nobody said."""
        self._unacknowledged = 0
        self._window_left = STREAM_WINDOW

    # From the exchange.

    @property
    def is_full(self) -> bool:
        """Whether so much of the request waits that there should not come more."""
        return self.unsent > _MOST_WAITING

    @property
    def sink(self) -> Stream | None:
        """Nowhere: a body goes in frames."""
        return None

    def send_request(self, exchange: Exchange, body: bytes | bytearray) -> None:
        """Send a request's head, and what there is of its body."""
        prepared, caching = exchange.prepared, exchange.caching
        start = prepared.start if caching is None else caching.start_of(prepared)
        block = b"".join(
            [
                request_block(start, self.connection.scheme),
                lines_block_again(exchange.client.origin_of(prepared.head.host)),
                field_block(b"x-request-id", exchange.request_id),
                lines_block(exchange.more) if exchange.more else b"",
                TE_TRAILERS if wants_trailers(prepared.head) else b"",
            ]
        )
        ends = exchange.request_over and not body and not exchange.trailers
        self.connection.send_head(self, block, ends=ends)
        if body:
            self.send_body(bytes(body))
        if exchange.request_over and not ends:
            self.end_request(list(exchange.trailers))

    def send_body(self, data: bytes) -> None:
        """Send more of the request's body."""
        if data and self.exchange is not None:
            self._waiting.append(data)
            self.unsent += len(data)
            self.connection.out.queue(self)

    def end_request(self, trailers: list[Field]) -> None:
        """Send the end of the request's body, behind what waits."""
        if self.exchange is not None and not self.request_over:
            self._trailers = trailers
            self.connection.out.queue(self)

    def resume(self) -> None:
        """Open the backend's window again, since the client takes more."""
        size, self._unacknowledged = self._unacknowledged, 0
        if size and self.exchange is not None:
            self._window_left += size
            self.connection.out.say(window_frame(self.number, size))

    def abandon(self, exchange: Exchange) -> None:
        """Have the backend stop, since nobody wants the answer any more."""
        if self.exchange is exchange:
            self.exchange = None
            self.connection.cancel(self, is_late=exchange.reason is not DropReason.CLIENT_GONE)

    def become_tunnel(self) -> bytes:
        """Do nothing: no answer of HTTP/2 changes the protocol."""
        return b""

    def shut_down(self) -> None:
        """End the request."""
        self.end_request([])

    # Towards the windows.

    @property
    def has_more(self) -> bool:
        """Whether there is a frame to send."""
        return self.unsent > 0 or (self._trailers is not None and not self.request_over)

    def send_frame(self, most: int) -> int:
        """Send the next frame of the request; return how many bytes of the body it had.

        Args:
            most: How many it may have, 1 or more; there is room in the windows.
        """
        connection = self.connection
        pieces = pieces_of(self._waiting, most)
        size = sum(map(len, pieces))
        self.unsent -= size
        self.window -= size
        is_last = not self.unsent and self._trailers is not None
        if is_last and self._trailers:
            if size:
                connection.out.data(self, pieces, size, ends=False)
            connection.out.trailers(self, trailers_block(self._trailers))
        else:
            connection.out.data(self, pieces, size, ends=is_last)
        if is_last:
            self.request_over = True
        exchange = self.exchange
        if exchange is not None and exchange.holds_request and self.unsent <= _MOST_WAITING // 2:
            exchange.backend_drained()
        return size

    # From the backend.

    def heard(self, headers: Iterable[Header], *, is_over: bool) -> None:
        """Take a head, or the trailers."""
        exchange = self.exchange
        assert exchange is not None
        try:
            if self._answer is not None:
                self._take_trailers(exchange, headers, is_over=is_over)
            else:
                self._take_head(exchange, headers, is_over=is_over)
        except Malformed as malformed:
            self._refuse(str(malformed))
        except Refused as refused:
            self._refuse(refused.refusal.text)

    def received(self, data: bytes, size: int, *, is_over: bool) -> None:
        """Take a part of the answer.

        Args:
            data: The bytes.
            size: How many of our windows they have taken, padding included.
            is_over: Whether the stream ends with them.
        """
        exchange, answer = self.exchange, self._answer
        assert exchange is not None
        self._window_left -= size
        if self._window_left < 0:
            self._refuse("sends more than its window", FLOW_CONTROL_ERROR)
            return
        if answer is None:
            self._refuse("a body before its head")
            return
        if not self._is_as_long_as_said(len(data), is_over=is_over):
            return
        if is_over:
            self._end(exchange, answer, data)
            return
        if self._is_pending and not self._first:
            self._first = data
        else:
            self.pass_on()
            if data and self.exchange is exchange:
                exchange.answer_body(data)
        self._unacknowledged += size
        if self._unacknowledged >= STREAM_WINDOW // 2 and not exchange.is_held:
            self.resume()

    def pass_on(self) -> None:
        """Pass on the head that was kept back, and what came behind it."""
        if self._is_pending and self.exchange is not None:
            assert self._answer is not None
            self._is_pending = False
            first, self._first = self._first, b""
            self.exchange.answer_head(self._answer, first)

    def was_reset(self, code: int, *, is_over_limit: bool) -> None:
        """End, since the backend has reset the stream; the connection has forgotten it.

        Args:
            code: Why.
            is_over_limit: Whether there were more than the backend takes, which it had said too late.
        """
        if code == REFUSED_STREAM:
            # Not looked at: RFC 9113, section 8.7.
            self.fail(
                DropReason.BACKEND_RESET,
                "refused the stream",
                sent=False,
                is_stale=is_over_limit,
            )
        else:
            self.fail(DropReason.BACKEND_RESET, f"reset the stream: {name_of(code)}")

    def fail(
        self,
        reason: DropReason,
        error: str,
        *,
        sent: bool = True,
        is_stale: bool = False,
        by_answer: bool = False,
    ) -> None:
        """End; what the answer had come to is for the exchange to judge. The connection has forgotten the stream.

        Args:
            reason: What went wrong.
            error: The same in words.
            sent: Whether the backend may have done something about the request.
            is_stale: Whether the connection's age is to blame, not the backend.
            by_answer: Whether it said something that is no answer.
        """
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        self._forget_request()
        if self._answer is not None and not self._is_pending and reason is not DropReason.FLUSHED:
            exchange.answer_cut(error)
        else:
            exchange.backend_failed(reason, error, sent=sent, was_used=is_stale, answered=by_answer)

    def _take_head(self, exchange: Exchange, headers: Iterable[Header], *, is_over: bool) -> None:
        block = answer_block(headers)
        service = self.connection.pool.service
        answer = service.prepared_answer(block, exchange.method, read_answer)
        if answer.head.is_interim:
            if is_over:
                raise Malformed("an interim answer that ends the stream")
            exchange.answer_interim(answer)
            return
        self._answer = answer
        self._left = answer.head.length
        self._is_pending = True
        if not is_over:
            self.connection.keep_back(self)
        elif self._is_as_long_as_said(0, is_over=True):
            self._end(exchange, answer, b"")

    def _take_trailers(self, exchange: Exchange, headers: Iterable[Header], *, is_over: bool) -> None:
        if not is_over:
            raise Malformed("a second head")
        trailers = read_trailers(headers)
        if not self._is_as_long_as_said(0, is_over=True):
            return
        self.pass_on()
        if self.exchange is exchange:
            self._leave()
            exchange.answer_end(b"", trailers)

    def _end(self, exchange: Exchange, answer: PreparedAnswer, data: bytes) -> None:
        first = self._first
        if self._is_pending and not (first and data):
            self._is_pending = False
            self._leave()
            exchange.answer_whole(answer, first or data)
            return
        self.pass_on()
        if self.exchange is exchange:
            self._leave()
            exchange.answer_end(data)

    def _is_as_long_as_said(self, count: int, *, is_over: bool) -> bool:
        """Hold the body to its Content-Length (RFC 9113, section 8.1.1)."""
        if self._left is None:
            return True
        self._left -= count
        if self._left < 0 or (is_over and self._left):
            self._refuse("its body is not as long as it says")
            return False
        return True

    def _refuse(self, error: str, code: int = PROTOCOL_ERROR) -> None:
        """Reset the stream, since its answer is none."""
        self.connection.reset(self, code)
        self.fail(DropReason.BAD_ANSWER, error, by_answer=True)

    def _leave(self) -> None:
        """Be over, since the answer is whole."""
        self.exchange = None
        self._forget_request()
        self.connection.leave(self)

    def _forget_request(self) -> None:
        self._waiting.clear()
        self.unsent = 0
        self._trailers = None
