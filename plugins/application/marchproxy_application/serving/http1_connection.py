"""A client's connection in HTTP/1.1: requests are read strictly, one after the other, and answered in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from marchproxy_application.http1.chunks import ChunkReader
from marchproxy_application.http1.counted import CountedReader
from marchproxy_application.http1.writing import CLOSE
from marchproxy_application.serving.client_connection import LINGER_S
from marchproxy_application.serving.exchange import Exchange
from marchproxy_application.serving.http1_deadlines import look
from marchproxy_application.serving.http1_state import ANSWER, BODY, HEAD, LAST_WORDS, LINGER, TUNNEL
from marchproxy_application.serving.own_answers import own_answer
from marchproxy_application.serving.request_reading import RequestReader
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.backends.connection import BackendConnection
    from marchproxy_application.http1.refusals import Refusal
    from marchproxy_application.serving.admitting import Admission
    from marchproxy_application.serving.front import Front, Routed
    from marchproxy_application.serving.preparing import PreparedAnswer
    from marchproxy_core.relay.accepting import Address


@final
class Http1Connection(RequestReader):
    """A client that was let in; counted as open until it is closed."""

    __slots__ = ("_has_asked",)

    def __init__(self, front: Front, sock: SocketType, peer: Address) -> None:
        """Take over an accepted, non-blocking socket."""
        super().__init__(front, sock, peer)
        self._has_asked = False
        """Whether it has had an answer."""

    def enter(self, admission: Admission) -> None:
        """Go on with a client that was counted already, and has done what comes before a request."""
        self.go_on_from(admission)
        self.loop.expire_at(self, self.loop.now_s + self.carried.settings.read_timeout)
        if self.readable:
            self.loop.again(self._read_again)

    def on_drained(self) -> None:
        """Have the answer go on."""
        if self.state is LAST_WORDS:
            self._say_goodbye()
        elif self.exchange is not None:
            self.exchange.client_drained()

    def on_broken(self, error: OSError) -> None:
        """End, since nobody is there any more."""
        del error
        exchange = self.exchange
        if exchange is not None:
            exchange.client_gone()
        self.close()

    def answer_upgrade(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, backend: BackendConnection
    ) -> None:
        """Send the head that changes the protocol, and let everything through from here on."""
        self.keeps = False
        self.state = TUNNEL
        exchange.request_over = False
        self.write(b"%b%b\r\n" % (answer.start, more))
        rest = backend.become_tunnel()
        if rest:
            exchange.answer_body(rest)
        early, self.buffer = self.buffer, b""
        if early and not exchange.is_over:
            exchange.request_body(early)
        self.resume_later()

    def answer_cut(self) -> None:
        """Reset, so that nobody takes what was sent for the whole answer."""
        self.exchange = None  # it has a reason of its own: the client has not left
        self.close(reset=True)

    def request_wanted(self) -> None:
        """Go on with the request's body."""
        if self.readable or self.buffer:
            self.resume_later()

    def over(self, exchange: Exchange) -> None:
        """Go on with the next request, or close after the last."""
        if self.exchange is exchange:
            self.exchange = None
        if self.closed:
            return
        if not self.keeps or not exchange.request_over:
            self._end_after_answer()
            return
        self.state = HEAD
        self._has_asked = True
        self._codes_chunks = False
        self.heard_since_s = self.loop.now_s
        if self.buffer:
            self._advance()
        if self.readable:
            # Come while the answer was on its way, or there for TLS: no event tells of it again. Not only of an empty
            # buffer: what is left there may be half a request that never gets its other half.
            self.resume_later()

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once, and count the end of the connection."""
        super().close(reset=reset)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def go_away(self) -> None:
        """Close if there is no request; else it is answered first, and a WebSocket is told."""
        if self.state is HEAD and not self.buffer:
            # What was sent before the client could know is answered, although epoll has not told of it yet.
            self.readable = True
            self.on_readable()
        if self.closed:
            return
        if self.state is HEAD and not self.buffer:
            if self._has_asked:
                self.close()
            else:
                self.loop.expire_by(self, self.loop.now_s + LINGER_S)
        elif self.exchange is not None:
            self.exchange.go_away()
            self.loop.expire_by(self, self.loop.now_s + LINGER_S)

    def on_deadline(self, now_s: float) -> float | None:
        """Cut what takes too long; else say when to look again."""
        return look(self, now_s)

    # What the client has sent.

    def on_head(self, routed: Routed) -> None:
        """Have the service of the request answer it."""
        head, service, prepared = routed.head, routed.service, routed.prepared
        self.version = "1.1" if head.minor else "1.0"
        if service is None or prepared is None:
            if routed.is_misdirected:
                self.answer_alone(421, DropReason.MISDIRECTED)
            else:
                self.answer_alone(404, DropReason.NO_ROUTE)
            return
        if self.asked != self.front.admitter.asked:
            # Since its handshake clients have to prove something else.
            self.answer_alone(421, DropReason.MISDIRECTED)
            return
        self.exchange = exchange = Exchange(self, service, prepared)
        if exchange.request_over:
            self.state = ANSWER
        else:
            self.state = BODY
            self.body = ChunkReader() if head.is_chunked else CountedReader(head.length)
        self.loop.expire_by(self, self.loop.now_s + service.look_after_s)
        exchange.start()

    def on_preface(self, data: bytes) -> None:
        """Go on in HTTP/2, since that is what the client speaks."""
        self.front.become_http2(self, data)

    def on_end(self) -> None:
        """Handle the end of what the client sends."""
        self.readable = False
        exchange = self.exchange
        if self.state is TUNNEL and exchange is not None and exchange.backend is not None:
            exchange.backend.shut_down()
        elif self.state is BODY and exchange is not None:
            exchange.client_gone()
            self.close()
        elif self.state is not ANSWER and self.state is not LAST_WORDS:
            self.close()

    def on_refused(self, refusal: Refusal) -> None:
        """Answer what cannot be read, and end."""
        reason = DropReason(refusal.name.lower())
        exchange = self.exchange
        self.keeps = False
        self.buffer = b""
        if exchange is not None:
            exchange.refuse(reason, status=refusal.status)
        else:
            self.answer_alone(refusal.status, reason)

    # Ending.

    def answer_alone(self, status: int, reason: DropReason) -> None:
        """Answer what is no request of any service, and end."""
        service = self.front.owner
        self.carried.drop(reason)
        request_id = service.next_id()
        answer, body = own_answer(status, request_id)
        self.keeps = False
        self.write(b"%bX-Request-Id: %b\r\n%b\r\n%b" % (answer.start, request_id, CLOSE, body))
        service.refused(self, request_id, status, reason)
        if not self.closed:
            self._end_after_answer()

    def _end_after_answer(self) -> None:
        self.state = LAST_WORDS
        if not self.unsent:
            self._say_goodbye()
        else:
            self.loop.expire_by(self, self.loop.now_s + self.carried.settings.write_timeout)

    def _say_goodbye(self) -> None:
        if not self.readable and not self.buffer and self.exchange is None and self.body is None:
            self.close()
            return
        if self.linger():
            self.state = LINGER
            self.buffer = b""
            self.body = None
            self.resume_later()
