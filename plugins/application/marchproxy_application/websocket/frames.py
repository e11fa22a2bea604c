"""Where frames end, so that a Close can be put between two of them; their content passes unread."""

from __future__ import annotations

import os
import struct
from typing import Final, final

GOING_AWAY: Final = 1001
_CLOSE: Final = 0x88
_MASKED: Final = 0x80


@final
class FrameWalk:
    """Walks along the bytes of one direction."""

    __slots__ = ("_head", "left")

    def __init__(self) -> None:
        """Be before the first frame."""
        self._head = b""
        self.left = 0
        """Bytes of the current frame's payload that are still to come."""

    @property
    def is_between(self) -> bool:
        """Whether the last frame is whole and the next one has not begun."""
        return not self.left and not self._head

    def skip(self, count: int) -> None:
        """Walk along so many bytes of payload; no more than are left."""
        self.left -= count

    def walk(self, data: bytes) -> int:
        """Walk along what came; return where the first frame ends in it, -1 if none does."""
        at, size, first = 0, len(data), -1
        while at < size:
            if self.left:
                step = min(self.left, size - at)
                self.left -= step
                at += step
            else:
                need = _head_bytes(self._head + data[at : at + 14])
                taken = len(self._head)
                if taken + size - at < need:
                    self._head += data[at:]
                    break
                head = self._head + data[at : at + need - taken]
                self._head = b""
                self.left = _payload_bytes(head)
                at += need - taken
            if not self.left and not self._head and first < 0:
                first = at
        return first


def close_frame(status: int, *, masked: bool) -> bytes:
    """Return a Close frame (section 5.5.1).

    Args:
        status: Its status code.
        masked: Whether it goes to a server (section 5.3).
    """
    payload = struct.pack("!H", status)
    if not masked:
        return bytes((_CLOSE, len(payload))) + payload
    mask = os.urandom(4)
    return (
        bytes((_CLOSE, _MASKED | len(payload)))
        + mask
        + bytes(a ^ b for a, b in zip(payload, mask, strict=False))
    )


def _head_bytes(start: bytes) -> int:
    """Return how long a frame's head is, as far as its first two bytes say; 2 while they are not there."""
    if len(start) < 2:
        return 2
    length = start[1] & 0x7F
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if start[1] & _MASKED else 0)


def _payload_bytes(head: bytes) -> int:
    length = head[1] & 0x7F
    if length == 126:
        return int.from_bytes(head[2:4])
    if length == 127:
        return int.from_bytes(head[2:10])
    return length
