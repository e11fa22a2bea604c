"""Header blocks that come again and again, decoded once. Pure.

A client that repeats a request sends, after the first two, the same few indexes. They mean the same for as long as
the dynamic table stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hpack.hpack import Decoder
from hpack.table import HeaderTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hpack.struct import HeaderTuple

_MOST: Final = 64
_LONGEST: Final = 256


class _Table(HeaderTable):
    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)


class RememberingDecoder(Decoder):
    """A decoder for one connection."""

    def __init__(self, max_header_list_size: int) -> None:
        """Know nothing.

        Args:
            max_header_list_size: Bytes of a decoded list (RFC 9113, section 6.5.2); a larger one raises.
        """
        super().__init__(max_header_list_size)
        self._table = _Table()
        self.header_table = self._table
        self._known: dict[bytes, list[HeaderTuple]] = {}

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Decode a block; what it raises is what ``hpack.Decoder`` raises."""
        known = self._known.get(data)
        if known is not None:
            return known
        before = self._table.changes
        headers = list(super().decode(data, raw))
        if self._table.changes != before or (data and data[0] & 0xE0 == 0x20):
            self._known.clear()
        elif len(data) <= _LONGEST:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[bytes(data)] = headers
        return headers
