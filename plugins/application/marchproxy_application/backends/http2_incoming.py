"""What comes from one backend of HTTP/2: frames, and what becomes of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from hpack.exceptions import HPACKError

from marchproxy_application.backends import http2_frames as frames
from marchproxy_application.backends.http2_frames import (
    ACK,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HIGHEST,
    PROTOCOL_ERROR,
    FrameCutter,
    frame_of,
)
from marchproxy_application.backends.http2_outgoing import CONNECTION_WINDOW
from marchproxy_application.http2.floods import Allowance
from marchproxy_application.http2.frames import (
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    BadFrame,
)
from marchproxy_application.http2.remembering import RememberingDecoder
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from marchproxy_application.backends.http2_connection import Http2BackendConnection
    from marchproxy_application.backends.http2_frames import Frame
    from marchproxy_application.backends.http2_stream import BackendStream

_MOST_HEADER_LIST: Final = 1 << 17
_COMPRESSION_ERROR: Final = 0x9
_ENHANCE_YOUR_CALM: Final = 0xB


@final
class Incoming:
    """The receiving half of one connection."""

    __slots__ = ("_allowance", "_connection", "_cutter", "_decoder", "_window_left", "pending")

    def __init__(self, connection: Http2BackendConnection) -> None:
        """Expect the first SETTINGS."""
        self._connection = connection
        self._window_left = CONNECTION_WINDOW
        self._allowance = Allowance(1000, 100)
        self._cutter = FrameCutter()
        self._decoder = RememberingDecoder(_MOST_HEADER_LIST)
        self.pending: list[BackendStream] = []
        """Streams that have kept a head back until what was read is through."""

    def feed(self, data: bytes) -> None:
        """Do what the frames say that are whole.

        Raises:
            BadFrame: The connection is at its end.
        """
        for frame in self._cutter.feed(data):
            self._handle(frame)
            if self._connection.closed:
                return

    def pass_on(self) -> None:
        """Have heads passed on that were kept back."""
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
        elif not self._allowance.take(self._connection.loop.now_s):
            raise BadFrame(_ENHANCE_YOUR_CALM, "too many frames that carry nothing")
        elif kind == SETTINGS:
            if not frame.flags & ACK:
                self._on_settings(frame)
        elif kind == PING:
            if not frame.flags & ACK:
                self._connection.out.say(frame_of(PING, ACK, 0, frame.payload))
        elif kind == GOAWAY:
            last, code = frames.word_of(frame.payload) & HIGHEST, frames.word_of(frame.payload, 4)
            self._connection.goes_away(last, code)

    def _on_headers(self, frame: Frame) -> None:
        try:
            headers = self._decoder.decode(frame.payload, raw=True)
        except HPACKError as error:
            raise BadFrame(_COMPRESSION_ERROR, "a header block that cannot be read") from error
        stream = self._stream_of(frame)
        if stream is not None:
            stream.heard(((bytes(name), bytes(value)) for name, value in headers), is_over=_ends(frame))

    def _on_data(self, frame: Frame) -> None:
        connection, size = self._connection, frame.size
        self._window_left -= size
        if self._window_left < 0:
            raise BadFrame(FLOW_CONTROL_ERROR, "sends more than its window")
        if self._window_left < CONNECTION_WINDOW // 2:
            connection.out.say(frames.window_frame(0, CONNECTION_WINDOW - self._window_left))
            self._window_left = CONNECTION_WINDOW
        if not frame.payload and not _ends(frame) and not self._allowance.take(connection.loop.now_s):
            raise BadFrame(_ENHANCE_YOUR_CALM, "too many frames that carry nothing")
        stream = self._stream_of(frame)
        if stream is not None:
            stream.received(frame.payload, size, is_over=_ends(frame))

    def _on_window(self, frame: Frame) -> None:
        count = frames.word_of(frame.payload) & HIGHEST
        if not frame.stream:
            self._connection.out.open_window(count)
            return
        stream = self._stream_of(frame)
        if stream is None:
            return
        stream.window += count
        if not count or stream.window > HIGHEST:
            self._connection.reset(stream, FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR)
            stream.fail(DropReason.BAD_ANSWER, "a window that is none", by_answer=True)
        elif stream.has_more:
            self._connection.out.queue(stream)

    def _on_reset(self, frame: Frame) -> None:
        stream = self._stream_of(frame)
        if stream is not None:
            self._connection.was_reset(stream, frames.word_of(frame.payload))

    def _on_settings(self, frame: Frame) -> None:
        connection = self._connection
        most = None
        for key, value in frames.read_settings(frame.payload):
            if key == 0x2 and value:
                raise BadFrame(PROTOCOL_ERROR, "would push to a server")
            if key == 0x3:
                most = value
            elif key == 0x4:
                connection.out.adopt_window(value, connection.streams.values())
            elif key == 0x5:
                connection.out.adopt_frame_bytes(value)
        connection.out.say(frame_of(SETTINGS, ACK, 0))
        connection.adopt_most_streams(most)

    def _stream_of(self, frame: Frame) -> BackendStream | None:
        """Return whose a frame is; None for one that is over already."""
        stream = self._connection.streams.get(frame.stream)
        if stream is None and not self._connection.out.has_opened(frame.stream):
            raise BadFrame(PROTOCOL_ERROR, "a frame of a stream that nobody opened")
        return stream


def _ends(frame: Frame) -> bool:
    return bool(frame.flags & END_STREAM)
