"""Frames, looked at before they cost anything: whole ones go on to h2, and floods end here. Pure.

What h2 does for a frame costs some fifty times what the nine bytes of its head cost here. And h2 closes a connection
for good when its peer says GOAWAY, though streams go on then (RFC 9113, section 6.8): so that frame ends here, too.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, final

from marchproxy_application.http2.floods import Allowance

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_FRAME_BYTES: Final = 1 << 14
"""SETTINGS_MAX_FRAME_SIZE, as it is unless one says otherwise."""
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
_END_STREAM: Final = 0x1
_ACK: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_HEAD: Final = Struct(">BHBBL")
_HEAD_BYTES: Final = 9
_MOST_CONTINUATIONS: Final = 32
_FRAME_SIZE_ERROR: Final = 0x6
_PROTOCOL_ERROR: Final = 0x1


class Flood(Exception):
    """A peer sends more than it may of what is cheap for it alone; the message says what."""


class BadFrame(Exception):
    """A frame that ends the connection."""

    def __init__(self, code: int, text: str) -> None:
        """Keep the error code (RFC 9113, section 7) that its sender is told."""
        super().__init__(text)
        self.code = code


@final
class FrameReader:
    """Cuts what a client sends into frames, and counts them."""

    def __init__(self, most_header_bytes: int) -> None:
        """Expect the preface.

        Args:
            most_header_bytes: Of one header block, as it is encoded.
        """
        self._most_header_bytes = most_header_bytes
        self._preface_left = len(PREFACE)
        self._tail = b""
        self._is_first = True
        self._block_bytes = -1
        self._continuations = 0
        self.has_said_goodbye = False
        """Whether a GOAWAY has come: no more requests will."""
        self._window_updates = Allowance(1000, 100)
        self._empty_data = Allowance(100, 10)
        self._resets = Allowance(200, 20)
        self._priorities = Allowance(200, 20)
        self._allowances = {
            PRIORITY: (self._priorities, "PRIORITY"),
            RST_STREAM: (self._resets, "RST_STREAM"),
            SETTINGS: (Allowance(50, 5), "SETTINGS"),
            PING: (Allowance(500, 50), "PING"),
            GOAWAY: (Allowance(10, 1), "GOAWAY"),
            WINDOW_UPDATE: (self._window_updates, "WINDOW_UPDATE"),
        }
        self._unknown = (Allowance(100, 10), "unknown")

    @property
    def is_within(self) -> bool:
        """Whether the preface, a frame or a header block has come in part."""
        return bool(self._tail) or self._block_bytes >= 0 or self._is_first

    def feed(self, data: bytes, now_s: float) -> bytes:
        """Take what has come; return what of it h2 is to see.

        Args:
            data: At least one byte.
            now_s: The time.

        Raises:
            Flood: There is too much of something.
            BadFrame: The connection is at its end.
        """
        start = b""
        if self._preface_left:
            start, data = data[: self._preface_left], data[self._preface_left :]
            self._preface_left -= len(start)
        if self._tail:
            data = self._tail + data
        at, end = 0, len(data)
        kept: list[bytes] = [start] if start else []
        first = 0
        while end - at >= _HEAD_BYTES:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            length = high << 16 | low
            if length > MOST_FRAME_BYTES:
                raise BadFrame(_FRAME_SIZE_ERROR, "a frame is too large")
            after = at + _HEAD_BYTES + length
            if after > end:
                break
            if kind == DATA:
                self._judge_data(data, at, flags, length, now_s)
            else:
                self._judge(kind, flags, length, now_s)
                if kind == GOAWAY and length >= 8 and not stream:
                    self.has_said_goodbye = True
                    kept.append(data[first:at])
                    first = after
            at = after
        self._tail = data[at:]
        if kept:
            kept.append(data[first:at])
            return b"".join(kept)
        return data[:at] if at < end else data

    def sent_data(self, count: int) -> None:
        """Take note of DATA frames that the peer got, each of which may be worth it two WINDOW_UPDATEs."""
        self._window_updates.earn(2 * count)

    def reset(self, now_s: float) -> None:
        """Take note of a stream that we have reset for the peer's fault, which costs as much as if it had done it.

        Raises:
            Flood: There are too many.
        """
        if not self._resets.take(now_s):
            raise Flood("streams that end in errors")

    def _judge_data(self, data: bytes, at: int, flags: int, length: int, now_s: float) -> None:
        self._is_in_order(DATA, 0)
        is_empty = not length or (flags & _PADDED and data[at + _HEAD_BYTES] + 1 >= length)
        if is_empty and not flags & _END_STREAM and not self._empty_data.take(now_s):
            raise Flood("empty DATA frames")

    def _judge(self, kind: int, flags: int, length: int, now_s: float) -> None:
        self._is_in_order(kind, flags)
        if kind == HEADERS:
            self._window_updates.earn(2)
            self._priorities.earn(1)
            if not flags & _END_HEADERS:
                self._block_bytes = length
                self._continuations = 0
        elif kind == CONTINUATION:
            self._continue(flags, length)
        else:
            allowance, what = self._allowances.get(kind, self._unknown)
            if not allowance.take(now_s):
                raise Flood(f"{what} frames")

    def _is_in_order(self, kind: int, flags: int) -> None:
        if self._is_first:
            if kind != SETTINGS or flags & _ACK:
                raise BadFrame(_PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._is_first = False
        if (self._block_bytes >= 0) is not (kind == CONTINUATION):
            raise BadFrame(_PROTOCOL_ERROR, "a frame within a header block, or CONTINUATION outside of one")

    def _continue(self, flags: int, length: int) -> None:
        self._block_bytes += length
        self._continuations += 1
        if self._block_bytes > self._most_header_bytes:
            raise Flood("bytes of a header block")
        if flags & _END_HEADERS:
            self._block_bytes = -1
        elif self._continuations > _MOST_CONTINUATIONS or not length:
            raise Flood("CONTINUATION frames")
