"""A response on its way into the cache, piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_application.cache.storable import Unstored

if TYPE_CHECKING:
    from marchproxy_application.cache.stored import Stored


@final
@attrs.define
class Room:
    """What all responses on their way into one cache take together.

    Args:
        most_bytes: Of all of them.
        object_bytes: Of one.
    """

    most_bytes: int
    object_bytes: int
    taken_bytes: int = 0


@final
class Saving:
    """Collects a body; ends by ``finish`` or ``abort``, once. Too large a body has it give up by itself."""

    __slots__ = ("_end", "_length", "_pieces", "_room", "_size_bytes", "has_ended", "unstored")

    def __init__(
        self, room: Room, length: int | None, end: Callable[[bytes | None, Unstored | None], Stored | None]
    ) -> None:
        """Begin.

        Args:
            room: Where the pieces lie.
            length: Of the body, in bytes, as its head says; None when it does not.
            end: Called once, with the body or why there is none; returns what is stored, if anything.
        """
        self._room = room
        self._length = length
        self._end = end
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self.has_ended = False
        self.unstored: Unstored | None = None
        """Why nothing was stored, once that is known."""

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Add the body's next piece; after the end, nothing happens."""
        if self.has_ended:
            return
        room = self._room
        size = len(data)
        if self._size_bytes + size > room.object_bytes:
            self._give_up(Unstored.TOO_LARGE)
        elif room.taken_bytes + size > room.most_bytes:
            self._give_up(Unstored.BUSY)
        else:
            self._pieces.append(bytes(data))
            self._size_bytes += size
            room.taken_bytes += size

    def finish(self) -> Stored | None:
        """Store it: the body has ended as it should. Returns None when it is not stored after all."""
        if self.has_ended:
            return None
        if self._length is not None and self._length != self._size_bytes:
            self._give_up(Unstored.CUT_SHORT)
            return None
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._leave()
        stored = self._end(body, None)
        if stored is None:
            self.unstored = Unstored.INVALIDATED
        return stored

    def abort(self) -> None:
        """Forget it: the body was cut short. After the end, nothing happens."""
        if not self.has_ended:
            self._give_up(Unstored.CUT_SHORT)

    def _give_up(self, why: Unstored) -> None:
        self.unstored = why
        self._leave()
        self._end(None, why)

    def _leave(self) -> None:
        self.has_ended = True
        self._room.taken_bytes -= self._size_bytes
        self._pieces = []
