"""A connection to a backend in HTTP/2, with prior knowledge or after ALPN: many requests side by side.

A slow client holds its own stream; the connection's window is opened at once, so that nobody else waits for it.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.backends import http2_frames as frames
from marchproxy_application.backends.beginning import proxy_header
from marchproxy_application.backends.http2_frames import frame_of
from marchproxy_application.backends.http2_incoming import Incoming
from marchproxy_application.backends.http2_outgoing import Outgoing
from marchproxy_application.backends.http2_stream import CANCEL, BackendStream
from marchproxy_application.http2.frames import PING, BadFrame
from marchproxy_application.streams import Stream, what
from marchproxy_application.tls.streams import cause_of
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.backends.beginning import Verified
    from marchproxy_application.backends.http2_pool import Http2Pool
    from marchproxy_application.serving.exchange import Exchange

MOST_STREAMS: Final = 1000
"""At once, for a backend that names no number, or a larger one."""
UNTIL_TOLD: Final = 100
"""As many as every backend should take (RFC 9113, section 6.5.2)."""
_MOST_READS: Final = 8
_MOST_ANSWERS: Final = 1 << 20
"""How much may wait for a backend that has us answer its frames and reads nothing."""
_PROBE_AFTER_S: Final = 1.0
_PROBE_S: Final = 5.0
"""How long a backend may take to answer whether it is there."""
_PROBE: Final = b"stillup?"


@final
class Http2BackendConnection(Stream):
    """A connection that :class:`Http2Pool` opened; closes itself when it is of no more use."""

    __slots__ = (
        "_incoming",
        "_is_shaking",
        "_is_told",
        "_most_streams",
        "_probe_due_s",
        "_waiting_for_it",
        "heard_s",
        "idle_since_s",
        "is_connecting",
        "is_for_one",
        "is_leaving",
        "is_quiet",
        "out",
        "pool",
        "requests",
        "scheme",
        "streams",
        "verified",
    )

    def __init__(
        self, pool: Http2Pool, sock: SocketType, verified: Verified | None, *, is_for_one: bool
    ) -> None:
        """Take over a socket that connects.

        Args:
            pool: Whose it is.
            sock: The socket.
            verified: Whom the backend has to be; None: TLS is not spoken.
            is_for_one: Whether it serves one request only.
        """
        super().__init__(pool.service.loop, sock)
        self.pool = pool
        self.verified = verified
        self.is_for_one = is_for_one
        self.writable = False
        self.scheme = b"http" if verified is None else b"https"
        self.requests = 0
        """How many were sent on it."""
        self.idle_since_s = self.heard_s = self.loop.now_s
        self.is_quiet = True
        """Nothing was heard of it since it was idle."""
        self.is_leaving = False
        """It takes no more requests, and closes after the last one."""
        self.is_connecting = True
        """Until the TLS handshake is over, if there is one."""
        self._is_shaking = False
        self._is_told = False
        """Its SETTINGS have come."""
        self._waiting_for_it: dict[Exchange, None] = {}
        self.streams: dict[int, BackendStream] = {}
        self._most_streams = pool.most_streams
        self._probe_due_s = 0.0
        """Until when the backend may say that it is there; 0: nobody has asked."""
        self.out = Outgoing(self)
        self._incoming = Incoming(self)

    # From the pool.

    def start(self) -> None:
        """See to it that connecting does not take for ever."""
        self.loop.expire_at(self, self.loop.now_s + self.pool.service.carried.settings.connect_timeout)

    @property
    def is_idle(self) -> bool:
        """Whether it has no request."""
        return not self.streams and not self._waiting_for_it

    @property
    def has_room(self) -> bool:
        """Whether it takes one more request."""
        asked = len(self.streams) + len(self._waiting_for_it)
        return (
            asked < self._most_streams
            and not self.is_leaving
            and not (self.is_for_one and (asked or self.requests))
            and not self.closed
            and not self._probe_due_s
        )

    def begin(self, exchange: Exchange) -> None:
        """Have a request sent, as soon as the connection stands; it has room."""
        if self.is_connecting:
            self._waiting_for_it[exchange] = None
            return
        if not self.streams:
            self.is_quiet = True
            self.read_little()
        self.requests += 1
        exchange.backend_ready(BackendStream(self, exchange))

    def stop_waiting(self, exchange: Exchange) -> None:
        """Forget a request that waits no more for the connection to stand."""
        self._waiting_for_it.pop(exchange, None)

    def is_alive(self) -> bool:
        """Read what an idle connection has, which may be its end; return whether it takes a request."""
        self.readable = True
        self.on_readable()
        return self.has_room

    def retire(self) -> None:
        """Take no more requests; close after the last one."""
        self.is_leaving = True
        if self.is_idle:
            self._say_and_close(0)

    def on_flushed(self) -> None:
        """End at once, since the backend is flushed."""
        self._lose(DropReason.FLUSHED, "backend flushed", sent=not self.is_connecting)

    # From streams.

    def send_head(self, stream: BackendStream, block: bytes, *, ends: bool) -> None:
        """Give a stream its number, and send its head.

        Args:
            stream: Whose it is.
            block: As it is encoded.
            ends: Whether the request ends with it.
        """
        self.out.head(stream, block, ends=ends)
        self.streams[stream.number] = stream
        stream.request_over = ends
        if not self.out.has_numbers:
            self.is_leaving = True

    def keep_back(self, stream: BackendStream) -> None:
        """Have a stream pass its head on when all that was read is through."""
        self._incoming.pending.append(stream)

    def cancel(self, stream: BackendStream, *, is_late: bool) -> None:
        """End a stream whose answer nobody wants any more.

        Args:
            stream: The stream.
            is_late: Whether that is so because the answer took too long.
        """
        now_s = self.loop.now_s
        silent_s = now_s - max(self.heard_s, stream.began_s)
        if is_late and silent_s > _PROBE_AFTER_S and not self._probe_due_s:
            # The backend may be gone without a word, and others must not wait for it. Not asked each time that a
            # client cancels: gRPC's servers throw out who pings them more often than they say something.
            self._probe_due_s = now_s + _PROBE_S
            self.out.say(frame_of(PING, 0, 0, _PROBE))
            self.loop.expire_by(self, self._probe_due_s)
        self.reset(stream, CANCEL)

    def reset(self, stream: BackendStream, code: int) -> None:
        """End a stream before its time; its exchange knows, or is told by whoever calls."""
        if self.streams.pop(stream.number, None) is not None and not self.closed:
            self.out.say(frames.reset_frame(stream.number, code))
            self._freed()

    def leave(self, stream: BackendStream) -> None:
        """Forget a stream whose answer is whole; what is left of its request is of no use."""
        if self.streams.pop(stream.number, None) is None:
            return
        if not stream.request_over:
            self.out.say(frames.reset_frame(stream.number, CANCEL))
        self._freed()

    # From the loop.

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once, and tell the pool."""
        if not self.closed:
            super().close(reset=reset)
            self.out.forget()
            self.pool.forget(self)

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        if self._is_shaking:
            self._shake()
            return
        if self.is_connecting:
            error = self.socket_error()
            if error is not None:
                self._lose(DropReason.BACKEND_REFUSED, what(error), sent=False)
                return
            self.writable = True
            self._greet()
            if self.verified is not None:
                self._is_shaking = not self.closed
                self._shake()
                return
            self._connected()
        if not self.closed:
            super().on_event(events)

    def on_readable(self) -> None:
        """Read frames."""
        for _ in range(_MOST_READS):
            if not self.readable:
                return
            data = self.read()
            if data is None:
                return
            if not data:
                self._lose(DropReason.BACKEND_RESET, "closed the connection")
                return
            self._received(data)
            if self.closed:
                return
        if self.readable:
            self.loop.again(self._read_again)

    def on_drained(self) -> None:
        """Have the requests go on."""
        self.out.flush_soon()

    def on_broken(self, error: OSError) -> None:
        """End, since the backend is gone; what it has said before that is read first."""
        if self.readable and not self.closed:
            self._read_last()
        if isinstance(error, ssl.SSLError):
            # With TLS 1.3 a backend judges our certificate when for us the handshake is over.
            self._lose(DropReason.BACKEND_TLS_FAILED, cause_of(error))
        else:
            self._lose(DropReason.BACKEND_RESET, what(error))

    def on_deadline(self, now_s: float) -> float | None:
        """Give up what takes too long; else say when to look again."""
        settings = self.pool.service.carried.settings
        if self.is_connecting:
            limit_s = settings.connect_timeout
            self._lose(DropReason.BACKEND_TIMEOUT, f"no answer within {limit_s:g} s", sent=False)
            return None
        due_s = float("inf")
        if self._probe_due_s:
            if now_s >= self._probe_due_s:
                self._lose(DropReason.BACKEND_RESET, f"no answer to PING within {_PROBE_S:g} s")
                return None
            due_s = self._probe_due_s
        if self.unsent:
            stuck_s = self.unsent_since_s + settings.write_timeout
            if now_s >= stuck_s:
                self._lose(DropReason.BACKEND_RESET, f"took nothing for {settings.write_timeout:g} s")
                return None
            due_s = min(due_s, stuck_s)
        return None if due_s == float("inf") else due_s

    # Reading.

    def _greet(self) -> None:
        """Say whose request it is, where a PROXY header is wanted: the connection is for that one alone."""
        exchange = next(iter(self._waiting_for_it), None)
        header = proxy_header(self.pool.service, exchange) if exchange is not None else b""
        if header:
            self.write(header)  # in one piece: a new connection's buffer is empty

    def _shake(self) -> None:
        """Go on with the TLS handshake."""
        verified = self.verified
        if self.closed or verified is None:
            return
        try:
            secured = self.secured or self.secure(verified.context, server_name=verified.name)
            if not secured.shake():
                return
        except (OSError, ValueError) as error:
            self._unverified(error, is_ours=verified.is_ours)
            return
        if secured.sock.selected_alpn_protocol() != "h2":
            self._lose(DropReason.BACKEND_TLS_FAILED, "speaks no HTTP/2", sent=False)
            return
        self._is_shaking = False
        self.readable = True  # edge-triggered: what has come with the handshake is told by nobody
        self._connected()
        self._read_again()

    def _unverified(self, error: OSError | ValueError, *, is_ours: bool) -> None:
        if is_ours or not isinstance(error, ValueError | ssl.SSLError):
            self._lose(DropReason.BACKEND_TLS_FAILED, cause_of(error), sent=False)
            return
        # The clients chose the name: what they ask for must not put a backend in a bad light.
        waiting = tuple(self._waiting_for_it)
        self._waiting_for_it.clear()
        self.close(reset=True)
        for exchange in waiting:
            exchange.backend_lacking(DropReason.BACKEND_TLS_FAILED, cause_of(error))

    def _connected(self) -> None:
        self.is_connecting = False
        self.pool.connected(self)
        self.loop.expire_at(self, None)
        self.out.flush_soon()
        waiting = tuple(self._waiting_for_it)
        self._waiting_for_it.clear()
        for exchange in waiting:
            self.begin(exchange)
        if not waiting:
            self._freed()

    def _read_again(self) -> None:
        if not self.closed and self.readable:
            self.on_readable()

    def _read_last(self) -> None:
        """Read what there is before a socket's error is acted on."""
        self.readable = False
        try:
            while not self.closed and (data := self._recv(1 << 18)):
                self._received(data)
        except OSError:
            return

    def _received(self, data: bytes) -> None:
        self.heard_s = self.loop.now_s
        self.is_quiet = False
        was_in_doubt, self._probe_due_s = bool(self._probe_due_s), 0.0
        try:
            self._incoming.feed(data)
        except BadFrame as bad:
            self.out.say(frames.goaway_frame(bad.code))
            self.out.write_out()
            self._lose(DropReason.BAD_ANSWER, str(bad), by_answer=True)
        self._incoming.pass_on()
        if was_in_doubt:
            self._freed()

    # What frames say of the connection.

    def adopt_most_streams(self, value: int | None) -> None:
        """Take note of how many requests at once the backend takes; None: it did not say."""
        if value is not None:
            self._most_streams = min(value, MOST_STREAMS)
        elif not self._is_told:
            self._most_streams = MOST_STREAMS
        self._is_told = True
        self.pool.most_streams = max(self._most_streams, 1)
        self.pool.freed(self)

    def was_reset(self, stream: BackendStream, code: int) -> None:
        """End a stream that the backend has reset."""
        is_over_limit = len(self.streams) > self._most_streams
        del self.streams[stream.number]
        stream.was_reset(code, is_over_limit=is_over_limit)
        self._freed()

    def goes_away(self, last: int, code: int) -> None:
        """Have those who are not served try elsewhere; the others go on (RFC 9113, section 6.8).

        Args:
            last: The last stream that is served.
            code: Why the backend goes.
        """
        self.is_leaving = True
        refused = [stream for number, stream in self.streams.items() if number > last]
        for stream in refused:
            del self.streams[stream.number]
        for stream in refused:
            error = f"went away: {frames.name_of(code)}"
            stream.fail(DropReason.BACKEND_RESET, error, sent=False, is_stale=not code)
        self._freed()

    def look_at_unsent(self) -> None:
        """See to it that what the kernel has not taken does not wait for ever, nor grow without bounds."""
        if self.unsent > _MOST_ANSWERS:
            self._lose(DropReason.BACKEND_RESET, "reads nothing")
        else:
            settings = self.pool.service.carried.settings
            self.loop.expire_by(self, self.unsent_since_s + settings.write_timeout)

    # Ending.

    def _freed(self) -> None:
        """Take note that there is room for another request, or that the last one is over."""
        if self.closed:
            return
        if self.is_idle:
            self.idle_since_s = self.loop.now_s
            if self.is_leaving:
                self._say_and_close(0)
                return
        self.pool.freed(self)

    def _say_and_close(self, code: int) -> None:
        if not self.is_connecting and not self.unsent:
            self.out.say(frames.goaway_frame(code))
            self.out.write_out()
        self.close()

    def _lose(self, reason: DropReason, error: str, *, sent: bool = True, by_answer: bool = False) -> None:
        """Close, and tell everybody who had a request on it."""
        if self.closed:
            return
        streams = tuple(self.streams.values())
        waiting = tuple(self._waiting_for_it)
        is_stale = reason is DropReason.BACKEND_RESET and self.requests > len(streams)
        self.streams.clear()
        self._waiting_for_it.clear()
        self.close(reset=not by_answer)
        for exchange in waiting:
            exchange.backend_failed(reason, error, sent=False)
        for stream in streams:
            quiet = is_stale and stream.was_quiet and self.is_quiet
            stream.fail(reason, error, sent=sent, is_stale=quiet, by_answer=by_answer)
