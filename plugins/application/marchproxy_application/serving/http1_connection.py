"""A client's connection in HTTP/1.1: requests are read strictly, one after the other, and answered in their order."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, final

from marchproxy_application.http1.chunks import ChunkReader, as_chunk, last_chunk
from marchproxy_application.http1.refusals import Refusal, Refused
from marchproxy_application.http1.writing import CLOSE, KEEP_ALIVE, origin_lines
from marchproxy_application.serving.exchange import Exchange
from marchproxy_application.serving.own_answers import own_answer
from marchproxy_application.splicing import LEAST_BYTES, pour
from marchproxy_application.streams import Stream
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.backends.connection import BackendConnection
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.admitting import Admission
    from marchproxy_application.serving.front import Front, Routed
    from marchproxy_application.serving.preparing import PreparedAnswer
    from marchproxy_core.relay.accepting import Address

_MOST_READS = 8
_GRACE_S = 5.0
"""How long a client may be slow before its rate is looked at."""
_LINGER_S = 2.0
"""How long what a client still sends is read and thrown away, so that it reads our last answer (RFC 9112, 9.6)."""
_LINGER_BYTES = 1 << 20
_PREFACE_START = b"PRI * HTTP/2.0\r\n\r\n"
"""No request of HTTP/1.1 can begin so (RFC 9113, section 3.4)."""


class _State(enum.Enum):
    HEAD = enum.auto()
    """A request's head is awaited, or has come in part."""
    BODY = enum.auto()
    ANSWER = enum.auto()
    """The request is whole; the next one is not looked at before it is answered."""
    TUNNEL = enum.auto()
    LAST_WORDS = enum.auto()
    """All is said; what is still to be sent is sent, then the connection is closed."""
    LINGER = enum.auto()


_HEAD, _BODY, _ANSWER, _TUNNEL, _LAST_WORDS, _LINGER = _State


@final
class Http1Connection(Stream):
    """A client that was let in; counted as open until it is closed."""

    __slots__ = (
        "_body_left",
        "_buffer",
        "_carried",
        "_chunks",
        "_codes_chunks",
        "_has_asked",
        "_is_busy",
        "_keeps",
        "_origin",
        "_origin_host",
        "_since_s",
        "_state",
        "_taken",
        "address",
        "asked",
        "exchange",
        "front",
        "peer",
        "port",
        "proxied",
        "scheme",
        "version",
    )

    def __init__(self, front: Front, sock: SocketType, peer: Address) -> None:
        """Take over an accepted, non-blocking socket."""
        super().__init__(front.loop, sock)
        self.front = front
        self.peer = peer
        self.address = peer[0].partition("%")[0].encode("ascii")
        self.scheme = b"http"
        self.port = front.endpoint.port
        self.proxied: Address | None = None
        """Where the client connected to, as its PROXY header says."""
        self.asked: tuple[str | None, bool] | None = None
        """What the client had to prove, as ``Admitter.asked``."""
        self.version = "1.1"
        self.exchange: Exchange | None = None
        self._carried = front.owner.carried
        self._state = _HEAD
        self._buffer = b""
        self._chunks: ChunkReader | None = None
        self._body_left = 0
        self._codes_chunks = False
        self._keeps = True
        self._has_asked = False
        """Whether it has had an answer."""
        self._origin_host: bytes | None = None
        self._origin = b""
        self._since_s = self.loop.now_s
        self._taken = 0
        self._is_busy = False

    def start(self) -> None:
        """Count the connection, and see to it that a request comes in time."""
        self._carried.opened()
        self.loop.expire_at(self, self.loop.now_s + self._carried.settings.read_timeout)

    def enter(self, admission: Admission) -> None:
        """Go on with a client that was counted already, and has done what comes before a request."""
        self.adopt(admission)
        self._carried = admission.carried
        self.scheme, self.port, self.proxied = admission.scheme, admission.port, admission.proxied
        self.address, self.asked = admission.address, admission.asked
        self.loop.expire_at(self, self.loop.now_s + self._carried.settings.read_timeout)
        if self.readable:
            self.loop.again(self._read_again)

    # What comes from the client.

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        super().on_event(events)
        if events & _BROKEN and not self.closed and not self.readable:
            self.on_broken(self.socket_error() or OSError())

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
                self._ended()
                return
            self._received(data)
            if self.closed:
                return
        if self.readable:
            self.loop.again(self._read_again)

    def on_drained(self) -> None:
        """Have the answer go on."""
        if self._state is _LAST_WORDS:
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

    def on_deadline(self, now_s: float) -> float | None:
        """Cut what takes too long; else say when to look again."""
        settings = self._carried.settings
        if self.unsent:
            due_s = self.unsent_since_s + settings.write_timeout
            if now_s >= due_s or self._reads_too_slowly(now_s):
                self.cut(DropReason.WRITE_TIMEOUT if now_s >= due_s else DropReason.CLIENT_TOO_SLOW)
                return None
            if self.exchange is not None:
                due_s = min(due_s, self.exchange.look(now_s))
            return min(due_s, now_s + 1.0) if self._min_rate() else max(due_s, now_s + 0.25)
        if self._state in (_LAST_WORDS, _LINGER):
            self.close()
            return None
        exchange = self.exchange
        if exchange is None:
            return self._look_at_head(now_s)
        due_s = exchange.look(now_s)
        if self.closed or self.exchange is not exchange:
            return None if self.closed else now_s + 1.0
        if self._state is _BODY and not exchange.holds_request:
            body_due_s = self._since_s + settings.read_timeout
            if now_s >= body_due_s or self._is_too_slow(now_s):
                late = DropReason.READ_TIMEOUT if now_s >= body_due_s else DropReason.CLIENT_TOO_SLOW
                exchange.refuse(late)
                return now_s + 1.0
            due_s = min(due_s, body_due_s)
        return max(min(due_s, now_s + exchange.service.look_after_s), now_s + 0.25)

    # What goes to the client; see ``exchange.Client``.

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

    def answer(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, body: bytes, *, is_over: bool
    ) -> None:
        """Send the head of the answer and what there is of its body."""
        head = exchange.prepared.head
        if not head.keeps_alive or self.front.is_draining or not exchange.request_over:
            self._keeps = False
        start = answer.start
        if not answer.is_delimited:
            if head.minor:
                start = answer.start_chunked
                self._codes_chunks = True
                if body:
                    body = as_chunk(body)
                if is_over:
                    body += last_chunk([])
            else:
                self._keeps = False
        if self._keeps and head.minor:
            self.write(b"%b%b\r\n%b" % (start, more, body))
        else:
            self.write(b"%b%b%b\r\n%b" % (start, more, KEEP_ALIVE if self._keeps else CLOSE, body))

    def answer_interim(self, answer: PreparedAnswer) -> None:
        """Send a head that another one follows; who speaks HTTP/1.0 knows none."""
        if self.version == "1.1":
            self.write(answer.start + b"\r\n")

    def answer_upgrade(
        self, exchange: Exchange, answer: PreparedAnswer, more: bytes, backend: BackendConnection
    ) -> None:
        """Send the head that changes the protocol, and let everything through from here on."""
        self._keeps = False
        self._state = _TUNNEL
        exchange.request_over = False
        self.write(b"%b%b\r\n" % (answer.start, more))
        rest = backend.become_tunnel()
        if rest:
            exchange.answer_body(rest)
        early, self._buffer = self._buffer, b""
        if early and not exchange.is_over:
            exchange.request_body(early)
        self._resume_later()

    def answer_body(self, data: bytes) -> None:
        """Send more of the body."""
        self.write(as_chunk(data) if self._codes_chunks and data else data)

    def answer_end(self, data: bytes, trailers: list[Field]) -> None:
        """Send the last of the body."""
        if self._codes_chunks:
            data = (as_chunk(data) if data else b"") + last_chunk(trailers)
        if data:
            self.write(data)

    def answer_cut(self) -> None:
        """Reset, so that nobody takes what was sent for the whole answer."""
        self.exchange = None  # it has a reason of its own: the client has not left
        self.close(reset=True)

    def request_wanted(self) -> None:
        """Go on with the request's body."""
        if self.readable or self._buffer:
            self._resume_later()

    def over(self, exchange: Exchange) -> None:
        """Go on with the next request, or close after the last."""
        if self.exchange is exchange:
            self.exchange = None
        if self.closed:
            return
        if not self._keeps or not exchange.request_over:
            self._end_after_answer()
            return
        self._state = _HEAD
        self._has_asked = True
        self._codes_chunks = False
        self._since_s = self.loop.now_s
        if self._buffer:
            self._advance()
        if self.readable:
            # Come while the answer was on its way, or there for TLS: no event tells of it again. Not only of an empty
            # buffer: what is left there may be half a request that never gets its other half.
            self._resume_later()

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once, and count the end of the connection."""
        if not self.closed:
            super().close(reset=reset)
            self._carried.closed()
            self.front.connections.discard(self)
            exchange, self.exchange = self.exchange, None
            if exchange is not None:
                exchange.client_gone()

    def go_away(self) -> None:
        """Close if there is no request; else it is answered first, and a WebSocket is told."""
        if self._state is _HEAD and not self._buffer:
            # What was sent before the client could know is answered, although epoll has not told of it yet.
            self.readable = True
            self.on_readable()
        if self.closed:
            return
        if self._state is _HEAD and not self._buffer:
            if self._has_asked:
                self.close()
            else:
                self.loop.expire_by(self, self.loop.now_s + _LINGER_S)
        elif self.exchange is not None:
            self.exchange.go_away()
            self.loop.expire_by(self, self.loop.now_s + _LINGER_S)

    def cut(self, reason: DropReason | None) -> None:
        """End at once; the reason is counted."""
        if reason is not None:
            self._carried.drop(reason)
        self.close(reset=True)

    # Reading.

    def _is_held(self) -> bool:
        state = self._state
        if state is _HEAD:
            return False
        if state is _ANSWER:
            return True
        exchange = self.exchange
        return exchange is not None and exchange.holds_request

    def _spliceable(self, exchange: Exchange) -> int:
        """Return how many bytes come next of which nobody wants to see any."""
        if self.is_secure or self._buffer:
            return 0
        if self._state is _BODY and self._chunks is None and exchange.service.http.max_body_bytes is None:
            return self._body_left
        if self._state is _TUNNEL and exchange.tunnel is not None:
            return 0 if exchange.tunnel.is_closing else exchange.tunnel.from_client.left
        return 0

    def _pour(self, exchange: Exchange, sink: Stream) -> bool:
        """Splice; false when there is no more for now."""
        moved = pour(self, sink, self.front.pipes, self._spliceable(exchange))
        if moved < 0:
            self._ended()
            return False
        if not moved or self.exchange is not exchange:
            return False
        self._taken += moved
        exchange.request_spliced(moved)
        if exchange.tunnel is not None:
            exchange.tunnel.from_client.skip(moved)
            return True
        self._body_left -= moved
        self._since_s = self.loop.now_s if not self._min_rate() else self._since_s
        if not self._body_left:
            self._end_request(exchange, [])
        return not self.closed

    def _read_again(self) -> None:
        if not self.closed and self.readable:
            self.on_readable()

    def _resume_later(self) -> None:
        self.loop.again(self._resume)

    def _resume(self) -> None:
        if self.closed:
            return
        if self._buffer and self._state in (_HEAD, _BODY):
            self._advance()
        if not self.closed and self.readable:
            self.on_readable()

    def _received(self, data: bytes) -> None:
        state = self._state
        if state is _HEAD:
            if not self._buffer:
                routed = self.front.known(data)
                if routed is not None:
                    self._begin(routed)
                    return
                self._since_s = self.loop.now_s
                self._taken = 0
                self._buffer = data
            else:
                self._buffer += data
            self._taken += len(data)
            self._advance()
        elif state is _BODY:
            self._taken += len(data)
            self._since_s = self.loop.now_s if not self._min_rate() else self._since_s
            self._buffer = data
            self._advance()
        elif state is _TUNNEL:
            assert self.exchange is not None
            self.exchange.request_body(data)
        else:
            self._taken += len(data)
            if self._taken > _LINGER_BYTES:
                self.close(reset=True)

    def _advance(self) -> None:
        """Make what can be made of the buffer; not within itself, though answers that come at once end in here."""
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._buffer and not self.closed:
                if self._state is _HEAD:
                    if not self._read_head():
                        return
                elif self._state is _BODY and not self._is_held():
                    self._read_body()
                else:
                    return
        except Refused as refused:
            self._refuse(refused.refusal)
        finally:
            self._is_busy = False

    def _read_head(self) -> bool:
        """Read a whole head; false when there is none yet."""
        data = self._buffer
        if data.startswith(_PREFACE_START) and not self.unsent:
            self.front.become_http2(self, data)
            return False
        if data.startswith(b"\r\n"):
            self._buffer = data = data[2:]  # RFC 9112, section 2.2: an empty line before it is forgiven
            return bool(data)
        end = data.find(b"\r\n\r\n") + 4
        http = self.front.owner.http
        if end < 4:
            if len(data) > http.max_header_bytes:
                raise Refused(Refusal.HEAD_TOO_LARGE)
            if b"\n\n" in data or b"\n\r\n" in data:
                raise Refused(Refusal.BAD_LINE_END)
            longest_s = self._carried.settings.read_timeout
            if self._min_rate():
                longest_s = min(longest_s, _GRACE_S)
            self.loop.expire_by(self, self._since_s + longest_s)
            return False
        if end > http.max_header_bytes:
            raise Refused(Refusal.HEAD_TOO_LARGE)
        block, self._buffer = data[:end], data[end:]
        routed = self.front.known(block) or self.front.routed(block)
        if len(routed.head.fields) > http.max_headers:
            raise Refused(Refusal.HEAD_TOO_LARGE)
        self._begin(routed)
        return True

    def _begin(self, routed: Routed) -> None:
        head, service, prepared = routed.head, routed.service, routed.prepared
        self.version = "1.1" if head.minor else "1.0"
        if service is None or prepared is None:
            if routed.is_misdirected:
                self._answer_alone(421, DropReason.MISDIRECTED)
            else:
                self._answer_alone(404, DropReason.NO_ROUTE)
            return
        if self.asked != self.front.admitter.asked:
            # Since its handshake clients have to prove something else.
            self._answer_alone(421, DropReason.MISDIRECTED)
            return
        self.exchange = exchange = Exchange(self, service, prepared)
        if exchange.request_over:
            self._state = _ANSWER
        else:
            self._state = _BODY
            self._chunks = ChunkReader() if head.is_chunked else None
            self._body_left = head.length
        self.loop.expire_by(self, self.loop.now_s + service.look_after_s)
        exchange.start()

    def _read_body(self) -> None:
        exchange, chunks = self.exchange, self._chunks
        assert exchange is not None
        data, self._buffer = self._buffer, b""
        if chunks is None:
            piece, self._buffer = data[: self._body_left], data[self._body_left :]
            self._body_left -= len(piece)
            exchange.request_body(piece)
            if not self._body_left and self.exchange is exchange:
                self._end_request(exchange, [])
            return
        for piece in chunks.feed(data):
            exchange.request_body(piece)
            if self.exchange is not exchange:
                return
        if chunks.is_over:
            self._buffer = chunks.rest
            self._end_request(exchange, chunks.trailers)

    def _end_request(self, exchange: Exchange, trailers: list[Field]) -> None:
        self._state = _ANSWER
        self._chunks = None
        exchange.request_end(trailers)

    def _ended(self) -> None:
        """Handle the end of what the client sends."""
        self.readable = False
        exchange = self.exchange
        if self._state is _TUNNEL and exchange is not None and exchange.backend is not None:
            exchange.backend.shut_down()
        elif self._state is _BODY and exchange is not None:
            exchange.client_gone()
            self.close()
        elif self._state is not _ANSWER and self._state is not _LAST_WORDS:
            self.close()

    # Refusing and ending.

    def _refuse(self, refusal: Refusal) -> None:
        reason = DropReason(refusal.name.lower())
        exchange = self.exchange
        self._keeps = False
        self._buffer = b""
        if exchange is not None:
            exchange.refuse(reason, status=refusal.status)
        else:
            self._answer_alone(refusal.status, reason)

    def _answer_alone(self, status: int, reason: DropReason) -> None:
        """Answer what is no request of any service, and end."""
        service = self.front.owner
        self._carried.drop(reason)
        request_id = service.next_id()
        answer, body = own_answer(status, request_id)
        self._keeps = False
        self.write(b"%bX-Request-Id: %b\r\n%b\r\n%b" % (answer.start, request_id, CLOSE, body))
        service.refused(self, request_id, status, reason)
        if not self.closed:
            self._end_after_answer()

    def _end_after_answer(self) -> None:
        self._state = _LAST_WORDS
        self._taken = 0
        if not self.unsent:
            self._say_goodbye()
        else:
            self.loop.expire_by(self, self.loop.now_s + self._carried.settings.write_timeout)

    def _say_goodbye(self) -> None:
        if not self.readable and not self._buffer and self.exchange is None and self._chunks is None:
            self.close()
            return
        try:
            self.end_writing()
        except OSError:
            self.close()
            return
        self.read_to_forget()
        self._state = _LINGER
        self._buffer = b""
        self._chunks = None
        self.loop.expire_at(self, self.loop.now_s + _LINGER_S)
        self._resume_later()

    def _look_at_head(self, now_s: float) -> float | None:
        settings = self._carried.settings
        if not self._buffer:
            due_s = self._since_s + settings.keep_alive_timeout
            if now_s >= due_s or self.front.is_draining:
                self.close()
                return None
            return due_s
        due_s = self._since_s + settings.read_timeout
        if now_s >= due_s or self._is_too_slow(now_s):
            late = DropReason.READ_TIMEOUT if now_s >= due_s else DropReason.CLIENT_TOO_SLOW
            self._answer_alone(408, late)
            return None if self.closed else now_s + _LINGER_S
        return min(due_s, now_s + 1.0) if self._min_rate() else due_s

    def _min_rate(self) -> int:
        return self.front.owner.http.min_client_rate

    def _reads_too_slowly(self, now_s: float) -> bool:
        rate, took_s = self._min_rate(), now_s - self.waits_since_s
        return bool(rate) and took_s > _GRACE_S and self.taken < rate * took_s

    def _is_too_slow(self, now_s: float) -> bool:
        rate, took_s = self._min_rate(), now_s - self._since_s
        return bool(rate) and took_s > _GRACE_S and self._taken < rate * took_s


_BROKEN = 0x008 | 0x010  # EPOLLERR | EPOLLHUP
