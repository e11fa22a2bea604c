"""A body whose length its head says (RFC 9112, section 6.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marchproxy_application.http1.fields import Field


@final
class CountedReader:
    """Finds the end of such a body, which comes in pieces; to be read as ``ChunkReader`` is."""

    __slots__ = ("left", "rest", "trailers")

    def __init__(self, length: int) -> None:
        """Await a body of so many bytes, 1 or more."""
        self.left = length
        """How much is still to come."""
        self.rest = b""
        """What came behind the body, once it is over."""
        self.trailers: list[Field] = []
        """None: only chunks can have them."""

    @property
    def is_over(self) -> bool:
        """Whether all of it has come; what follows is another message's."""
        return not self.left

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Return the content in what came."""
        piece, self.rest = data[: self.left], data[self.left :]
        self.left -= len(piece)
        return (piece,)

    def skip(self, count: int) -> None:
        """Take note of content that went by unseen, no more than is left."""
        self.left -= count
