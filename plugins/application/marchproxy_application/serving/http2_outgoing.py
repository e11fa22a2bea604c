"""What one connection of HTTP/2 has to say: heads at once, bodies in turns and within the client's windows.

Nothing is written here: the connection takes it once a turn of the loop.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from h2.exceptions import ProtocolError, StreamClosedError
from hyperframe.frame import GoAwayFrame

from marchproxy_application.http2.frames import MOST_FRAME_BYTES

if TYPE_CHECKING:
    from marchproxy_application.http2.frames import FrameReader
    from marchproxy_application.serving.http2_protocol import ServerConnection
    from marchproxy_application.serving.http2_stream import Http2Stream

_STATUS: Final = ((b":status", b"200"),)
_INTERIM: Final = ((b":status", b"100"),)
_STATUS_1XX: Final = b"\x08\x031"
"""How the block of an interim answer begins."""


@final
class Outgoing:
    """Frames that wait, and streams that have more of them."""

    __slots__ = ("_h2", "_on_more", "_queue", "_reader", "_said", "has_failed", "is_over")

    def __init__(self, h2: ServerConnection, reader: FrameReader, on_more: Callable[[], None]) -> None:
        """Have our settings to say.

        Args:
            h2: The protocol's states.
            reader: Is told of the frames that a client may answer with others.
            on_more: Called when there is something.
        """
        self._h2 = h2
        self._reader = reader
        self._on_more = on_more
        self._queue: deque[Http2Stream] = deque()
        """Streams that have something to send and, as far as is known, may."""
        self._said = b""
        """What goes before what h2 has: GOAWAY frames of ours, as it takes no stream further after its own."""
        self.is_over = False
        """Whether streams have nothing to say any more."""
        self.has_failed = False
        """Whether h2 would not have something sent, which is a mistake of ours."""

    def head(self, stream: Http2Stream, block: bytes, *, ends: bool) -> None:
        """Send a header block.

        Args:
            stream: Whose it is.
            block: As it is encoded.
            ends: Whether the stream ends with it.
        """
        if self.is_over:
            return
        self._h2.ready.block = block
        # h2 looks at the status alone: whether another head follows.
        status = _INTERIM if block.startswith(_STATUS_1XX) else _STATUS
        try:
            self._h2.send_headers(stream.number, status, end_stream=ends)
        except ProtocolError:
            self.has_failed = True
        if ends:
            stream.has_ended = True
        self._on_more()

    def data(self, stream: Http2Stream, data: bytes, *, ends: bool) -> None:
        """Send a part of a body, for which there is room in the windows."""
        self._h2.send_data(stream.number, data, end_stream=ends)
        self._reader.sent_data(1)
        if ends:
            stream.has_ended = True

    def queue(self, stream: Http2Stream) -> None:
        """Have a stream send what it has, when it is its turn."""
        if not stream.is_queued:
            stream.is_queued = True
            self._queue.append(stream)
            self._on_more()

    def acknowledge(self, number: int, size: int) -> None:
        """Open the client's windows again."""
        if size and not self.is_over:
            self._h2.acknowledge_received_data(size, number)
            self._on_more()

    def reset(self, number: int, code: int) -> None:
        """Say that a stream ends before its time, unless it has ended already for all that h2 has seen."""
        if not self.is_over:
            with contextlib.suppress(StreamClosedError):
                self._h2.reset_stream(number, code)
            self._on_more()

    def goodbye(self, last: int, code: int) -> None:
        """Say GOAWAY."""
        frame = GoAwayFrame(0, last_stream_id=last, error_code=code)
        self._said += (self._h2.data_to_send() or b"") + frame.serialize()
        self._on_more()

    def forget(self) -> None:
        """Let streams say nothing more, since the connection is at its end."""
        self.is_over = True
        self._queue.clear()

    @property
    def may_go_on(self) -> bool:
        """Whether there is more to send, and room for it at the client's."""
        return bool(self._queue) and self._h2.outbound_flow_control_window > 0

    def gather(self, room: int) -> bytes:
        """Return what is to be written now.

        Args:
            room: How many bytes of bodies there may be.
        """
        try:
            self._take_turns(room)
        except (ProtocolError, KeyError):  # KeyError: for a stream that h2 has forgotten
            self.has_failed = True
        said, self._said = self._said, b""
        data = self._h2.data_to_send() or b""
        return said + data if said else data

    def _take_turns(self, room: int) -> None:
        """Have each stream send a frame, in turn, until nobody has more, or may send more."""
        queue, h2 = self._queue, self._h2
        for _ in range(len(queue) + room // MOST_FRAME_BYTES):
            if not queue or room <= 0:
                return
            stream = queue[0]
            most = min(h2.max_outbound_frame_size, MOST_FRAME_BYTES)
            if stream.unsent:
                if h2.outbound_flow_control_window <= 0:
                    return
                most = min(most, h2.local_flow_control_window(stream.number))
            queue.popleft()
            stream.is_queued = False
            if stream.has_more and most > 0:
                room -= stream.send_frame(most)
                if stream.has_more:
                    self.queue(stream)
