"""What a ClientHello says (RFC 8446, section 4.1.2; RFC 6066, section 3; RFC 7301), out of a connection's first bytes.

Pure and strict: what OpenSSL would refuse to decode is refused here, so that what is passed on unread by the name that
was found is read with that name by the server as well. Nothing is decrypted; an encrypted ClientHello (ECH)
shows its outer name.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES = 16384
"""Of the message; real ones have 200 to 2,000, with post-quantum key shares too."""
MOST_RECORDS = 64
"""That it may be split over; else one byte in each would be many times its size."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_LONGEST_RECORD = 16384
_SERVER_NAME, _ALPN = 0, 16
_NAME = re.compile(rb"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\Z")


class Unread(enum.Enum):
    """Why there is no ClientHello."""

    NEED_MORE = "its end has not come yet"
    NOT_TLS = "the connection does not begin with a TLS handshake"
    MALFORMED = "the ClientHello is malformed"
    TOO_LARGE = "the ClientHello is too large, or split over too many records"


@attrs.frozen
class ClientHello:
    """What a client asks for before anything is encrypted."""

    server_name: str | None
    """In small letters; None: it named none."""
    alpn: tuple[bytes, ...]
    """Protocols in its order of preference; empty: it offered none."""


@final
class HelloReader:
    """Reads one ClientHello, as its bytes come."""

    def __init__(self) -> None:
        """Begin at a connection's first byte."""
        self._unread = bytearray()
        self._message = bytearray()
        self._records = 0
        self._result: ClientHello | Unread = Unread.NEED_MORE

    def feed(self, data: bytes) -> ClientHello | Unread:
        """Take the next bytes; an answer other than NEED_MORE stays, and further bytes count for nothing."""
        if self._result is Unread.NEED_MORE:
            self._unread += data
            self._result = self._read()
            if self._result is not Unread.NEED_MORE:
                self._unread.clear()
                self._message.clear()
        return self._result

    def _read(self) -> ClientHello | Unread:
        unread, message = self._unread, self._message
        while True:
            if len(unread) < _RECORD_HEADER:
                return _as_far_as(unread)
            length = int.from_bytes(unread[3:5])
            if unread[0] != _HANDSHAKE or unread[1] != 3 or not 0 < length <= _LONGEST_RECORD:
                return Unread.MALFORMED if self._records else Unread.NOT_TLS
            if len(unread) < _RECORD_HEADER + length:
                # What it begins with is judged at once: a client that waits for an answer may send no more.
                return _judged(message + unread[_RECORD_HEADER:], is_whole=False)
            message += unread[_RECORD_HEADER : _RECORD_HEADER + length]
            del unread[: _RECORD_HEADER + length]
            self._records += 1
            result = _judged(message, is_whole=True)
            if result is not Unread.NEED_MORE:
                return result
            if self._records == MOST_RECORDS:
                return Unread.TOO_LARGE


def _as_far_as(header: bytearray) -> Unread:
    """Judge the beginning of a record's header."""
    return Unread.NEED_MORE if bytes((_HANDSHAKE, 3)).startswith(header[:2]) else Unread.NOT_TLS


def _judged(message: bytearray, *, is_whole: bool) -> ClientHello | Unread:
    """Judge what came of the message.

    Args:
        message: From its header on.
        is_whole: Whether its last record is; if not, there is more of that to come whatever the message's length is.
    """
    if message and message[0] != _CLIENT_HELLO:
        return Unread.MALFORMED
    if len(message) < _MESSAGE_HEADER:
        return Unread.NEED_MORE
    end = _MESSAGE_HEADER + int.from_bytes(message[1:4])
    if end > _MESSAGE_HEADER + MOST_BYTES:
        return Unread.TOO_LARGE
    if len(message) > end:
        return Unread.MALFORMED  # nothing may follow before the server's answer
    if len(message) < end or not is_whole:
        return Unread.NEED_MORE
    try:
        return _hello(_Bytes(bytes(message[_MESSAGE_HEADER:])))
    except _Malformed:
        return Unread.MALFORMED


class _Malformed(Exception):
    pass


@final
class _Bytes:
    """What is left to read; whoever asks for more than there is finds it malformed."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        at = self._at
        self._at = at + length
        if self._at > len(self._data):
            raise _Malformed
        return self._data[at : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int, least: int, most: int) -> bytes:
        """Take what has its own length in front, in so many bytes."""
        length = self.number(size)
        if not least <= length <= most:
            raise _Malformed
        return self.take(length)


def _hello(body: _Bytes) -> ClientHello:
    major = body.take(2)[0]
    body.take(32)
    body.vector(1, 0, 32)
    suites = body.vector(2, 2, 0xFFFE)
    methods = body.vector(1, 1, 0xFF)
    if major != 3 or len(suites) % 2 or 0 not in methods:
        raise _Malformed
    extensions = dict(_extensions(_Bytes(body.vector(2, 0, 0xFFFF)))) if body else {}
    if body:
        raise _Malformed
    name, protocols = extensions.get(_SERVER_NAME), extensions.get(_ALPN)
    return ClientHello(
        None if name is None else _server_name(_Bytes(name)),
        () if protocols is None else tuple(_protocols(_Bytes(protocols))),
    )


def _extensions(block: _Bytes) -> Iterator[tuple[int, bytes]]:
    seen = set()
    while block:
        number = block.number(2)
        if number in seen:
            raise _Malformed
        seen.add(number)
        yield number, block.vector(2, 0, 0xFFFF)


def _server_name(extension: _Bytes) -> str:
    """Read the one name that there may be: of other types none was ever defined."""
    names = _Bytes(extension.vector(2, 1, 0xFFFF))
    kind, name = names.number(1), names.vector(2, 1, 0xFFFF)
    if extension or names or kind != 0 or not _NAME.match(name):
        raise _Malformed
    return name.decode("ascii").lower()


def _protocols(extension: _Bytes) -> Iterator[bytes]:
    protocols = _Bytes(extension.vector(2, 2, 0xFFFF))
    if extension:
        raise _Malformed
    while protocols:
        yield protocols.vector(1, 1, 0xFF)
