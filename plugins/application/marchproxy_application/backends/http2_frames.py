"""Frames of a backend (RFC 9113, section 4), cut strictly out of what it sends; and frames for it. Pure.

What h2 would add costs more than all the rest of a request, and this side of the protocol is small: a client's, that
is never pushed to, never prioritizes, and puts nothing into the backend's header table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple, final

from marchproxy_application.http2.frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    BadFrame,
)

END_STREAM: Final = 0x1
ACK: Final = 0x1
MOST_FRAME_BYTES: Final = 1 << 16
"""SETTINGS_MAX_FRAME_SIZE that backends are told: bulk in fewer pieces."""
MOST_BLOCK_BYTES: Final = 1 << 16
"""Of one header block, as it is encoded."""
HIGHEST: Final = (1 << 31) - 1
"""Of stream numbers, and of windows."""
PROTOCOL_ERROR: Final = 0x1
FLOW_CONTROL_ERROR: Final = 0x3
FRAME_SIZE_ERROR: Final = 0x6
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_PRIORITY: Final = 0x20
_HEAD: Final = Struct(">BHBBL")
_HEAD_BYTES: Final = 9
_MOST_CONTINUATIONS: Final = 32
_SIZES: Final = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_STREAMS: Final = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE, CONTINUATION})
_OF_CONNECTIONS: Final = frozenset({SETTINGS, PING, GOAWAY})
_NAMES: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
"""Of errors, by their codes (RFC 9113, section 7)."""


class Frame(NamedTuple):
    """One frame; a header block comes as one, however many it was sent in."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    """Without padding and priority."""
    size: int
    """Bytes of the payload as it was sent, which flow control counts."""


@final
class FrameCutter:
    """Cuts what one backend sends."""

    def __init__(self) -> None:
        """Expect the first SETTINGS."""
        self._tail = b""
        self._is_first = True
        self._block: list[bytes] = []
        self._block_bytes = 0
        self._block_frame: Frame | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole.

        Raises:
            BadFrame: The connection is at its end.
        """
        data = self._tail + data if self._tail else data
        self._tail = b""
        at, end = 0, len(data)
        try:
            while end - at >= _HEAD_BYTES:
                high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
                length = high << 16 | low
                if self._is_first and (kind != SETTINGS or flags & ACK):
                    raise BadFrame(PROTOCOL_ERROR, "speaks no HTTP/2")
                if length > MOST_FRAME_BYTES:
                    raise BadFrame(FRAME_SIZE_ERROR, "a frame is too large")
                after = at + _HEAD_BYTES + length
                if after > end:
                    return
                payload = data[at + _HEAD_BYTES : after]
                at = after
                self._is_first = False
                frame = self._judged(Frame(kind, flags, stream & HIGHEST, payload, length))
                if frame is not None:
                    yield frame
        finally:
            self._tail = data[at:]

    def _judged(self, frame: Frame) -> Frame | None:
        kind = frame.kind
        if (self._block_frame is not None) is not (kind == CONTINUATION):
            raise BadFrame(PROTOCOL_ERROR, "a frame within a header block, or CONTINUATION outside of one")
        if (kind in _OF_STREAMS and not frame.stream) or (kind in _OF_CONNECTIONS and frame.stream):
            raise BadFrame(PROTOCOL_ERROR, "a frame of the wrong stream")
        if kind == DATA:
            return frame._replace(payload=_unpadded(frame)) if frame.flags & _PADDED else frame
        if kind == HEADERS:
            return self._begin_block(frame)
        if kind == CONTINUATION:
            return self._continue_block(frame)
        wanted = _SIZES.get(kind)
        is_short = kind == GOAWAY and frame.size < 8
        if is_short or (wanted is not None and frame.size != wanted):
            raise BadFrame(FRAME_SIZE_ERROR, "a frame of a wrong size")
        if kind == SETTINGS and (frame.size % 6 or (frame.flags & ACK and frame.size)):
            raise BadFrame(FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if kind == PUSH_PROMISE:
            raise BadFrame(PROTOCOL_ERROR, "pushes, though it was told not to")
        return frame

    def _begin_block(self, frame: Frame) -> Frame | None:
        payload = _unpadded(frame) if frame.flags & _PADDED else frame.payload
        if frame.flags & _PRIORITY:
            if len(payload) < 5:
                raise BadFrame(FRAME_SIZE_ERROR, "a frame of a wrong size")
            payload = payload[5:]
        if frame.flags & _END_HEADERS:
            return frame._replace(payload=payload)
        self._block_frame = frame
        self._block = [payload]
        self._block_bytes = len(payload)
        return None

    def _continue_block(self, frame: Frame) -> Frame | None:
        begun = self._block_frame
        assert begun is not None
        if frame.stream != begun.stream:
            raise BadFrame(PROTOCOL_ERROR, "CONTINUATION of another stream")
        self._block.append(frame.payload)
        self._block_bytes += frame.size
        if self._block_bytes > MOST_BLOCK_BYTES or len(self._block) > _MOST_CONTINUATIONS:
            raise BadFrame(PROTOCOL_ERROR, "a header block is too large")
        if not frame.flags & _END_HEADERS:
            return None
        self._block_frame = None
        return begun._replace(payload=b"".join(self._block))


def frame_of(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    length = len(payload)
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def head_frames(stream: int, block: bytes, most: int, *, ends: bool) -> bytes:
    """Write a header block, in as many frames as it takes.

    Args:
        stream: Whose it is.
        block: As it is encoded.
        most: How large a frame may be.
        ends: Whether the stream ends with it.
    """
    flags = END_STREAM if ends else 0
    if len(block) <= most:
        return frame_of(HEADERS, flags | _END_HEADERS, stream, block)
    pieces = [block[at : at + most] for at in range(0, len(block), most)]
    frames = [frame_of(HEADERS, flags, stream, pieces[0])]
    frames += [frame_of(CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
    frames.append(frame_of(CONTINUATION, _END_HEADERS, stream, pieces[-1]))
    return b"".join(frames)


def data_head(stream: int, length: int, *, ends: bool) -> bytes:
    """Write what comes before so many bytes of a body."""
    return _HEAD.pack(length >> 16, length & 0xFFFF, DATA, END_STREAM if ends else 0, stream)


def settings_frame(values: Iterable[tuple[int, int]]) -> bytes:
    """Write SETTINGS."""
    return frame_of(SETTINGS, 0, 0, b"".join([_SETTING.pack(key, value) for key, value in values]))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """Yield the settings of a frame, in order."""
    yield from _SETTING.iter_unpack(payload)


def reset_frame(stream: int, code: int) -> bytes:
    """Write RST_STREAM."""
    return frame_of(RST_STREAM, 0, stream, _WORD.pack(code))


def window_frame(stream: int, count: int) -> bytes:
    """Write WINDOW_UPDATE."""
    return frame_of(WINDOW_UPDATE, 0, stream, _WORD.pack(count))


def goaway_frame(code: int) -> bytes:
    """Write GOAWAY of a client, who has served no stream."""
    return frame_of(GOAWAY, 0, 0, _WORD.pack(0) + _WORD.pack(code))


def word_of(payload: bytes, at: int = 0) -> int:
    """Return 32 bits of a payload."""
    word: int = _WORD.unpack_from(payload, at)[0]
    return word


def name_of(code: int) -> str:
    """Return an error code in words, for the log."""
    return _NAMES[code] if code < len(_NAMES) else f"error {code:#x}"


def _unpadded(frame: Frame) -> bytes:
    payload = frame.payload
    if not payload or payload[0] >= len(payload):
        raise BadFrame(PROTOCOL_ERROR, "more padding than there is frame")
    return payload[1 : len(payload) - payload[0]]


_SETTING: Final = Struct(">HL")
_WORD: Final = Struct(">L")
