"""What goes to one backend of HTTP/2: frames, each stream's in turn, as far as the backend's windows let them.

Written once a turn of the loop, however many streams had something.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.backends import http2_frames as frames
from marchproxy_application.backends.http2_frames import FLOW_CONTROL_ERROR, HIGHEST, PROTOCOL_ERROR
from marchproxy_application.http2.frames import PREFACE, BadFrame
from marchproxy_application.streams import MOST_WAITING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_application.backends.http2_connection import Http2BackendConnection
    from marchproxy_application.backends.http2_stream import BackendStream

STREAM_WINDOW: Final = 1 << 18
"""How much of an answer its client may leave waiting."""
CONNECTION_WINDOW: Final = 1 << 24
_FIRST_WINDOW: Final = 65535
_FIRST_FRAME_BYTES: Final = 1 << 14
_MOST_SENT_AT_ONCE: Final = 1 << 14
"""How much one stream sends before the next one does."""
_NO_TABLE: Final = b"\x20"
"""A dynamic table of size 0 (RFC 7541, section 6.3): nothing that we send goes into it."""
_SETTINGS: Final = (
    (0x2, 0),  # ENABLE_PUSH
    (0x4, STREAM_WINDOW),
    (0x5, frames.MOST_FRAME_BYTES),
    (0x6, 1 << 16),  # MAX_HEADER_LIST_SIZE
)
_START: Final = (
    PREFACE + frames.settings_frame(_SETTINGS) + frames.window_frame(0, CONNECTION_WINDOW - _FIRST_WINDOW)
)


@final
class Outgoing:
    """The sending half of one connection."""

    __slots__ = (
        "_connection",
        "_frame_bytes",
        "_is_due",
        "_next_number",
        "_out",
        "_queue",
        "_window",
        "stream_window",
    )

    def __init__(self, connection: Http2BackendConnection) -> None:
        """Begin with the preface and our settings."""
        self._connection = connection
        self._next_number = 1
        self._frame_bytes = _FIRST_FRAME_BYTES
        self._window = _FIRST_WINDOW
        self.stream_window = _FIRST_WINDOW
        """That a new stream has towards the backend."""
        self._queue: deque[BackendStream] = deque()
        """Streams that have something to send and, as far as is known, may."""
        self._out: list[bytes | memoryview] = [_START]
        self._is_due = False

    @property
    def has_numbers(self) -> bool:
        """Whether there is a number for another stream."""
        return self._next_number <= HIGHEST

    def has_opened(self, number: int) -> bool:
        """Whether a stream of this number is open, or was."""
        return bool(number & 1) and number < self._next_number

    def head(self, stream: BackendStream, block: bytes, *, ends: bool) -> None:
        """Give a stream its number, and send its head.

        Args:
            stream: Whose it is.
            block: As it is encoded.
            ends: Whether the request ends with it.
        """
        number = stream.number = self._next_number
        self._next_number += 2
        if number == 1:
            block = _NO_TABLE + block
        self.say(frames.head_frames(number, block, self._frame_bytes, ends=ends))

    def trailers(self, stream: BackendStream, block: bytes) -> None:
        """Send the fields behind a request's body, and its end."""
        self.say(frames.head_frames(stream.number, block, self._frame_bytes, ends=True))

    def data(self, stream: BackendStream, pieces: list[bytes | memoryview], size: int, *, ends: bool) -> None:
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

    def say(self, data: bytes) -> None:
        """Send frames."""
        self._out.append(data)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Write what there is at the end of this turn."""
        if not self._is_due:
            self._is_due = True
            self._connection.loop.again(self._speak)

    def write_out(self) -> None:
        """Write what there is now."""
        if self._out and not self._connection.closed:
            data = b"".join(self._out)
            self._out.clear()
            self._connection.write(data)

    def forget(self) -> None:
        """Forget what there is, since the connection is closed."""
        self._out.clear()
        self._queue.clear()

    def open_window(self, count: int) -> None:
        """Send more, as the backend says for the connection as a whole.

        Raises:
            BadFrame: It says nonsense.
        """
        self._window += count
        if not count or self._window > HIGHEST:
            raise BadFrame(FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR, "a window that is none")
        if self._queue:
            self.flush_soon()

    def adopt_window(self, value: int, streams: Iterable[BackendStream]) -> None:
        """Give new streams this window, and change those of the old ones by the difference.

        Raises:
            BadFrame: That cannot be.
        """
        if value > HIGHEST:
            raise BadFrame(FLOW_CONTROL_ERROR, "a window that is none")
        more, self.stream_window = value - self.stream_window, value
        for stream in streams:
            stream.window += more
            if stream.window > HIGHEST:
                raise BadFrame(FLOW_CONTROL_ERROR, "a window that is none")
            if stream.has_more:
                self.queue(stream)

    def adopt_frame_bytes(self, value: int) -> None:
        """Send no larger frames than the backend takes.

        Raises:
            BadFrame: That is no size.
        """
        if not _FIRST_FRAME_BYTES <= value < 1 << 24:
            raise BadFrame(PROTOCOL_ERROR, "a frame size that is none")
        self._frame_bytes = value

    def _speak(self) -> None:
        self._is_due = False
        connection = self._connection
        if connection.closed or connection.is_connecting:
            return
        self._send_waiting()
        self.write_out()
        if connection.closed:
            return
        if connection.unsent:
            connection.look_at_unsent()
        elif self._queue and self._window > 0:
            self.flush_soon()

    def _send_waiting(self) -> None:
        """Have each stream send a frame, in turn, until nobody has more, or may send more."""
        queue = self._queue
        room = MOST_WAITING - self._connection.unsent
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
