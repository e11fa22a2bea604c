"""Answers' heads as header blocks (RFC 7541), out of what HTTP/1.1 would be told. Pure.

Nothing goes into the peer's dynamic table, so one head makes the same bytes for every client and is encoded once.
What that costs on the wire, some hundred bytes an answer, is less than what the table costs here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from hpack.hpack import Encoder
from hpack.table import HeaderTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_application.http1.fields import Field

_DROPPED: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_OF_HANDSHAKES: Final = _DROPPED | {b"sec-websocket-accept"}
_SECRET: Final = frozenset({b"set-cookie", b"authorization", b"cookie"})
_LONGEST_REMEMBERED: Final = 1024
_NO_TABLE: Final = b"\x20"
"""A dynamic table of size 0 (RFC 7541, section 6.3), to be said once, before the first head."""


class ReadyEncoder(Encoder):
    """Gives h2 the block that was laid here for it, whatever it asks to encode."""

    def __init__(self) -> None:
        """Have nothing ready."""
        super().__init__()
        self.block = b""
        """What goes out next."""
        self._start = _NO_TABLE

    def encode(self, headers: object, huffman: bool = True) -> bytes:
        """Return the block that is ready."""
        del headers, huffman
        start, self._start = self._start, b""
        return start + self.block


def block_of(start: bytes, status: int = 0) -> bytes:
    """Encode the first lines of a head: status line and fields.

    Args:
        start: As HTTP/1.1 has them.
        status: What is said in place of its status; 0: that one.
    """
    return _known(start, status) if len(start) <= _LONGEST_REMEMBERED else _encoded(start, status)


def _encoded(start: bytes, status: int) -> bytes:
    line, _, rest = start.partition(b"\r\n")
    code = b"%d" % status if status else line.split(b" ", 2)[1]
    return status_block(code) + lines_block(rest, _OF_HANDSHAKES if status else _DROPPED)


_known = lru_cache(1024)(_encoded)


def lines_block(lines: bytes, dropped: frozenset[bytes] = _DROPPED) -> bytes:
    """Encode field lines, each with its CR LF; fields that speak of a connection are left out."""
    parts: list[bytes] = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.lower()
        if colon and name not in dropped:
            parts += (_name(name), _text(value.strip(b" \t")))
    return b"".join(parts)


def field_block(name: bytes, value: bytes) -> bytes:
    """Encode one field, or one pseudo-header; the name in small letters."""
    return _name(name) + _text(value)


def trailers_block(trailers: Iterable[Field]) -> bytes:
    """Encode fields behind a body."""
    return lines_block(b"".join([field.line for field in trailers]))


def status_block(code: bytes) -> bytes:
    """Encode a status."""
    known = HeaderTable.STATIC_TABLE_MAPPING[b":status"][1].get(code)
    return bytes([0x80 | known]) if known else b"\x08" + _text(code)


@lru_cache(1024)
def _name(name: bytes) -> bytes:
    """Encode a name, of a literal that is not indexed (RFC 7541, section 6.2.2), or never (6.2.3)."""
    prefix = 0x10 if name in _SECRET else 0
    known = HeaderTable.STATIC_TABLE_MAPPING.get(name)
    if known is None:
        return bytes([prefix]) + _text(name)
    index = known[0]
    return bytes([prefix | index]) if index < 15 else bytes([prefix | 15, index - 15])


def _text(text: bytes) -> bytes:
    """Encode a string as it is (RFC 7541, section 5.2)."""
    length = len(text)
    if length < 127:
        return bytes([length]) + text
    prefix = bytearray([127])
    length -= 127
    while length >= 128:
        prefix.append(length & 127 | 128)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + text
