"""Bodies that wait for a window: what came in pieces goes out in others. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque


def pieces_of(waiting: deque[bytes | memoryview], most: int) -> list[bytes | memoryview]:
    """Take up to so many bytes of what waits, over the bounds of what it came in.

    Args:
        waiting: What waits, first to go first; of a piece that is not taken whole the rest stays.
        most: Bytes.
    """
    pieces: list[bytes | memoryview] = []
    left = most
    while waiting and left:
        data = waiting[0]
        if len(data) <= left:
            pieces.append(waiting.popleft())
        else:
            view = memoryview(data)
            pieces.append(view[:left])
            waiting[0] = view[left:]
        left -= len(pieces[-1])
    return pieces
