"""A connection to a backend in HTTP/2, with prior knowledge or after ALPN: many requests side by side.

What there is to say is written once a turn of the loop, however many streams had something. A slow client holds its
own stream; the connection's window is opened at once, so that nobody else waits for it.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, final

from hpack.exceptions import HPACKError

from marchproxy_application.backends import http2_frames as frames
from marchproxy_application.backends.beginning import proxy_header
from marchproxy_application.backends.http2_frames import (
    ACK,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HIGHEST,
    PROTOCOL_ERROR,
    FrameCutter,
    frame_of,
)
from marchproxy_application.backends.http2_stream import CANCEL, STREAM_WINDOW, BackendStream
from marchproxy_application.http2.floods import Allowance
from marchproxy_application.http2.frames import (
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    BadFrame,
)
from marchproxy_application.http2.remembering import RememberingDecoder
from marchproxy_application.streams import MOST_WAITING, Stream, what
from marchproxy_application.tls.streams import cause_of
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.backends.beginning import Verified
    from marchproxy_application.backends.http2_frames import Frame
    from marchproxy_application.backends.http2_pool import Http2Pool
    from marchproxy_application.serving.exchange import Exchange

MOST_STREAMS: Final = 1000
"""At once, for a backend that names no number, or a larger one."""
UNTIL_TOLD: Final = 100
"""As many as every backend should take (RFC 9113, section 6.5.2)."""
_CONNECTION_WINDOW: Final = 1 << 24
_FIRST_WINDOW: Final = 65535
_FIRST_FRAME_BYTES: Final = 1 << 14
_MOST_SENT_AT_ONCE: Final = 1 << 14
"""How much one stream sends before the next one does."""
_MOST_HEADER_LIST: Final = 1 << 17
_MOST_READS: Final = 8
_MOST_ANSWERS: Final = 1 << 20
"""How much may wait for a backend that has us answer its frames and reads nothing."""
_PROBE_AFTER_S: Final = 1.0
_PROBE_S: Final = 5.0
"""How long a backend may take to answer whether it is there."""
_PROBE: Final = b"stillup?"
_NO_TABLE: Final = b"\x20"
"""A dynamic table of size 0 (RFC 7541, section 6.3): nothing that we send goes into it."""
_COMPRESSION_ERROR: Final = 0x9
_ENHANCE_YOUR_CALM: Final = 0xB
_SETTINGS: Final = (
    (0x2, 0),  # ENABLE_PUSH
    (0x4, STREAM_WINDOW),
    (0x5, frames.MOST_FRAME_BYTES),
    (0x6, 1 << 16),  # MAX_HEADER_LIST_SIZE
)
_START: Final = (
    PREFACE + frames.settings_frame(_SETTINGS) + frames.window_frame(0, _CONNECTION_WINDOW - _FIRST_WINDOW)
)


@final
class Http2BackendConnection(Stream):
    """A connection that :class:`Http2Pool` opened; closes itself when it is of no more use."""

    __slots__ = (
        "_allowance",
        "_cutter",
        "_decoder",
        "_frame_bytes",
        "_is_connecting",
        "_is_due",
        "_is_shaking",
        "_is_told",
        "_most_streams",
        "_next_number",
        "_out",
        "_probe_due_s",
        "_queue",
        "_streams",
        "_waiting_for_it",
        "_window",
        "_window_left",
        "heard_s",
        "idle_since_s",
        "is_for_one",
        "is_leaving",
        "is_quiet",
        "pending",
        "pool",
        "requests",
        "scheme",
        "stream_window",
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
        self.pending: list[BackendStream] = []
        """Streams that have kept a head back until what was read is through."""
        self.stream_window = _FIRST_WINDOW
        """That a new stream has towards the backend."""
        self._is_connecting = True
        """Until the TLS handshake is over, if there is one."""
        self._is_shaking = False
        self._is_told = False
        """Its SETTINGS have come."""
        self._waiting_for_it: dict[Exchange, None] = {}
        self._streams: dict[int, BackendStream] = {}
        self._next_number = 1
        self._most_streams = pool.most_streams
        self._frame_bytes = _FIRST_FRAME_BYTES
        self._window = _FIRST_WINDOW
        self._window_left = _CONNECTION_WINDOW
        self._queue: deque[BackendStream] = deque()
        """Streams that have something to send and, as far as is known, may."""
        self._out: list[bytes | memoryview] = [_START]
        self._is_due = False
        self._probe_due_s = 0.0
        """Until when the backend may say that it is there; 0: nobody has asked."""
        self._allowance = Allowance(1000, 100)
        self._cutter = FrameCutter()
        self._decoder = RememberingDecoder(_MOST_HEADER_LIST)

    # From the pool.

    def start(self) -> None:
        """See to it that connecting does not take for ever."""
        self.loop.expire_at(self, self.loop.now_s + self.pool.service.carried.settings.connect_timeout)

    @property
    def is_idle(self) -> bool:
        """Whether it has no request."""
        return not self._streams and not self._waiting_for_it

    @property
    def has_room(self) -> bool:
        """Whether it takes one more request."""
        asked = len(self._streams) + len(self._waiting_for_it)
        return (
            asked < self._most_streams
            and not self.is_leaving
            and not (self.is_for_one and (asked or self.requests))
            and not self.closed
            and not self._probe_due_s
        )

    @property
    def is_over_limit(self) -> bool:
        """Whether it has more requests than the backend takes, which may say so too late."""
        return len(self._streams) >= self._most_streams

    def begin(self, exchange: Exchange) -> None:
        """Have a request sent, as soon as the connection stands; it has room."""
        if self._is_connecting:
            self._waiting_for_it[exchange] = None
            return
        if not self._streams:
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
        self._lose(DropReason.FLUSHED, "backend flushed", sent=not self._is_connecting)

    # From streams.

    def send_head(self, stream: BackendStream, block: bytes, *, ends: bool) -> None:
        """Give a stream its number, and send its head.

        Args:
            stream: Whose it is.
            block: As it is encoded.
            ends: Whether the request ends with it.
        """
        number = stream.number = self._next_number
        if number == 1:
            block = _NO_TABLE + block
        self._next_number += 2
        if self._next_number > HIGHEST:
            self.is_leaving = True
        self._streams[number] = stream
        stream.request_over = ends
        self._say(frames.head_frames(number, block, self._frame_bytes, ends=ends))

    def send_last_head(self, stream: BackendStream, block: bytes) -> None:
        """Send trailers."""
        self._say(frames.head_frames(stream.number, block, self._frame_bytes, ends=True))

    def send_data(
        self, stream: BackendStream, pieces: list[bytes | memoryview], size: int, *, ends: bool
    ) -> None:
        """Send a part of a body, for which there is room in the windows."""
        self._window -= size
        self._out.append(frames.data_head(stream.number, size, ends=ends))
        self._out += pieces
        self.flush_soon()

    def queue(self, stream: BackendStream) -> None:
        """Have a stream send what it has, when it is its turn."""
        if not stream.is_queued:
            stream.is_queued = True
            self._queue.append(stream)
            self.flush_soon()

    def open_window(self, stream: BackendStream, size: int) -> None:
        """Let the backend send more of an answer."""
        if not self.closed:
            self._say(frames.window_frame(stream.number, size))

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
            self._say(frame_of(PING, 0, 0, _PROBE))
            self.loop.expire_by(self, self._probe_due_s)
        self.reset(stream, CANCEL)

    def reset(self, stream: BackendStream, code: int) -> None:
        """End a stream before its time; its exchange knows, or is told by whoever calls."""
        if self._streams.pop(stream.number, None) is not None and not self.closed:
            self._say(frames.reset_frame(stream.number, code))
            self._freed()

    def leave(self, stream: BackendStream) -> None:
        """Forget a stream whose answer is whole; what is left of its request is of no use."""
        if self._streams.pop(stream.number, None) is None:
            return
        if not stream.request_over:
            self._say(frames.reset_frame(stream.number, CANCEL))
        self._freed()

    def flush_soon(self) -> None:
        """Write what there is at the end of this turn."""
        if not self._is_due:
            self._is_due = True
            self.loop.again(self._speak)

    # From the loop.

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once, and tell the pool."""
        if not self.closed:
            super().close(reset=reset)
            self._out.clear()
            self._queue.clear()
            self.pool.forget(self)

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        if self._is_shaking:
            self._shake()
            return
        if self._is_connecting:
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
        self.flush_soon()

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
        if self._is_connecting:
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
        self._is_connecting = False
        self.pool.connected(self)
        self.loop.expire_at(self, None)
        self.flush_soon()
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
        self._probe_due_s = 0.0
        self.is_quiet = False
        try:
            for frame in self._cutter.feed(data):
                self._handle(frame)
                if self.closed:
                    break
        except BadFrame as bad:
            self._out.append(frames.goaway_frame(bad.code))
            self._write_out()
            self._lose(DropReason.BAD_ANSWER, str(bad), by_answer=True)
        pending, self.pending = self.pending, []
        for stream in pending:
            stream.pass_on()

    def _handle(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == DATA:
            self._on_data(frame)
        elif kind == HEADERS:
            self._on_headers(frame)
        elif kind == WINDOW_UPDATE:
            self._on_window(frame)
        elif kind == RST_STREAM:
            self._on_reset(frame)
        elif not self._allowance.take(self.loop.now_s):
            raise BadFrame(_ENHANCE_YOUR_CALM, "too many frames that carry nothing")
        elif kind == SETTINGS:
            if not frame.flags & ACK:
                self._on_settings(frame)
        elif kind == PING:
            if not frame.flags & ACK:
                self._say(frame_of(PING, ACK, 0, frame.payload))
        elif kind == GOAWAY:
            self._on_goaway(frame)

    def _on_headers(self, frame: Frame) -> None:
        try:
            headers = self._decoder.decode(frame.payload, raw=True)
        except HPACKError as error:
            raise BadFrame(_COMPRESSION_ERROR, "a header block that cannot be read") from error
        stream = self._stream_of(frame)
        if stream is not None:
            stream.heard(((bytes(name), bytes(value)) for name, value in headers), is_over=_ends(frame))

    def _on_data(self, frame: Frame) -> None:
        size = frame.size
        self._window_left -= size
        if self._window_left < 0:
            raise BadFrame(FLOW_CONTROL_ERROR, "sends more than its window")
        if self._window_left < _CONNECTION_WINDOW // 2:
            self._say(frames.window_frame(0, _CONNECTION_WINDOW - self._window_left))
            self._window_left = _CONNECTION_WINDOW
        if not frame.payload and not _ends(frame) and not self._allowance.take(self.loop.now_s):
            raise BadFrame(_ENHANCE_YOUR_CALM, "too many frames that carry nothing")
        stream = self._stream_of(frame)
        if stream is not None:
            stream.received(frame.payload, size, is_over=_ends(frame))

    def _on_window(self, frame: Frame) -> None:
        count = frames.word_of(frame.payload) & HIGHEST
        if frame.stream:
            stream = self._stream_of(frame)
            if stream is None:
                return
            stream.window += count
            if not count or stream.window > HIGHEST:
                self.reset(stream, FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR)
                stream.fail(DropReason.BAD_ANSWER, "a window that is none", by_answer=True)
            elif stream.has_more:
                self.queue(stream)
            return
        self._window += count
        if not count or self._window > HIGHEST:
            raise BadFrame(FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR, "a window that is none")
        if self._queue:
            self.flush_soon()

    def _on_reset(self, frame: Frame) -> None:
        stream = self._stream_of(frame)
        if stream is not None:
            del self._streams[frame.stream]
            stream.was_reset(frames.word_of(frame.payload))
            self._freed()

    def _on_settings(self, frame: Frame) -> None:
        most = self._most_streams if self._is_told else MOST_STREAMS
        self._is_told = True
        for key, value in frames.read_settings(frame.payload):
            if key == 0x2 and value:
                raise BadFrame(PROTOCOL_ERROR, "would push to a server")
            if key == 0x3:
                most = min(value, MOST_STREAMS)
            elif key == 0x4:
                self._adopt_window(value)
            elif key == 0x5:
                if not _FIRST_FRAME_BYTES <= value < 1 << 24:
                    raise BadFrame(PROTOCOL_ERROR, "a frame size that is none")
                self._frame_bytes = value
        self._most_streams = self.pool.most_streams = most
        self._say(frame_of(SETTINGS, ACK, 0))
        self.pool.freed(self)

    def _adopt_window(self, value: int) -> None:
        if value > HIGHEST:
            raise BadFrame(FLOW_CONTROL_ERROR, "a window that is none")
        more, self.stream_window = value - self.stream_window, value
        for stream in self._streams.values():
            stream.window += more
            if stream.window > HIGHEST:
                raise BadFrame(FLOW_CONTROL_ERROR, "a window that is none")
            if stream.has_more:
                self.queue(stream)

    def _on_goaway(self, frame: Frame) -> None:
        """Have those who are not served try elsewhere; the others go on (RFC 9113, section 6.8)."""
        last, code = frames.word_of(frame.payload) & HIGHEST, frames.word_of(frame.payload, 4)
        self.is_leaving = True
        refused = [stream for number, stream in self._streams.items() if number > last]
        for stream in refused:
            del self._streams[stream.number]
        for stream in refused:
            error = f"went away: {frames.name_of(code)}"
            stream.fail(DropReason.BACKEND_RESET, error, sent=False, is_stale=not code)
        self._freed()

    def _stream_of(self, frame: Frame) -> BackendStream | None:
        """Return whose a frame is; None for one that is over already."""
        stream = self._streams.get(frame.stream)
        if stream is None and (not frame.stream & 1 or frame.stream >= self._next_number):
            raise BadFrame(PROTOCOL_ERROR, "a frame of a stream that nobody opened")
        return stream

    # Writing.

    def _say(self, data: bytes) -> None:
        self._out.append(data)
        self.flush_soon()

    def _speak(self) -> None:
        self._is_due = False
        if self.closed or self._is_connecting:
            return
        self._send_waiting()
        self._write_out()
        if self.closed:
            return
        if self.unsent:
            if self.unsent > _MOST_ANSWERS:
                self._lose(DropReason.BACKEND_RESET, "reads nothing")
                return
            self.loop.expire_by(self, self.unsent_since_s + self.pool.service.carried.settings.write_timeout)
        elif self._queue and self._window > 0:
            self.flush_soon()

    def _write_out(self) -> None:
        if self._out and not self.closed:
            data = b"".join(self._out)
            self._out.clear()
            self.write(data)

    def _send_waiting(self) -> None:
        """Have each stream send a frame, in turn, until nobody has more, or may send more."""
        queue = self._queue
        room = MOST_WAITING - self.unsent
        for _ in range(len(queue) + max(room, 0) // _MOST_SENT_AT_ONCE):
            if not queue or room <= 0:
                return
            stream = queue[0]
            if not stream.has_more:
                queue.popleft()
                stream.is_queued = False
                continue
            most = min(self._frame_bytes, _MOST_SENT_AT_ONCE)
            if stream.unsent:
                if self._window <= 0:
                    return
                most = min(most, self._window, stream.window)
            queue.popleft()
            if most > 0:
                room -= stream.send_frame(most)
                if stream.has_more:
                    queue.append(stream)
                    continue
            stream.is_queued = False

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
        if not self._is_connecting and not self.unsent:
            self._out.append(frames.goaway_frame(code))
            self._write_out()
        self.close()

    def _lose(self, reason: DropReason, error: str, *, sent: bool = True, by_answer: bool = False) -> None:
        """Close, and tell everybody who had a request on it."""
        if self.closed:
            return
        streams = tuple(self._streams.values())
        waiting = tuple(self._waiting_for_it)
        is_stale = reason is DropReason.BACKEND_RESET and self.requests > len(streams)
        self._streams.clear()
        self._waiting_for_it.clear()
        self.close(reset=not by_answer)
        for exchange in waiting:
            exchange.backend_failed(reason, error, sent=False)
        for stream in streams:
            quiet = is_stale and stream.was_quiet and self.is_quiet
            stream.fail(reason, error, sent=sent, is_stale=quiet, by_answer=by_answer)


def _ends(frame: Frame) -> bool:
    return bool(frame.flags & END_STREAM)
