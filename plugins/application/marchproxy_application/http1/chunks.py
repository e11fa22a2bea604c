"""The chunked coding (RFC 9112, section 7.1): taken off strictly, and put on anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from marchproxy_application.http1.fields import Field, Kind, read_field
from marchproxy_application.http1.refusals import Refusal, Refused

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?")
_LONGEST_LINE = 1024
_MOST_TRAILERS = 16384
LAST_CHUNK = b"0\r\n\r\n"


class ChunkReader:
    """Takes the coding off a body that comes in pieces."""

    def __init__(self) -> None:
        """Be at the beginning of the first chunk's size."""
        self._kept = b""
        self._left = 0
        self._ends_chunk = False
        self._in_trailers = False
        self.is_over = False
        """Whether the last chunk and the trailers have come; what follows is another message's."""
        self.trailers: list[Field] = []
        self.rest = b""
        """What came behind the body, once it is over."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the content in what came.

        Raises:
            Refused: The coding is malformed; nothing behind that can be read.
        """
        data = self._kept + data if self._kept else data
        self._kept = b""
        at = 0
        while not self.is_over:
            if self._left:
                piece = data[at : at + self._left]
                if not piece:
                    return
                at += len(piece)
                self._left -= len(piece)
                self._ends_chunk = not self._left
                yield piece
            elif self._ends_chunk:
                end = data[at : at + 2]
                if not b"\r\n".startswith(end):
                    raise Refused(Refusal.BAD_CHUNK)
                if len(end) < 2:
                    self._kept = end
                    return
                at += 2
                self._ends_chunk = False
            else:
                after = self._read_trailer(data, at) if self._in_trailers else self._read_size(data, at)
                if after is None:
                    self._kept = data[at:]
                    return
                at = after
        self.rest = data[at:]

    def _read_size(self, data: bytes, at: int) -> int | None:
        end = data.find(b"\r\n", at, at + _LONGEST_LINE)
        if end < 0:
            if len(data) - at >= _LONGEST_LINE or b"\n" in data[at:]:
                raise Refused(Refusal.BAD_CHUNK)
            return None
        match = _SIZE.fullmatch(data, at, end)
        if match is None:
            raise Refused(Refusal.BAD_CHUNK)
        self._left = int(match[1], 16)
        self._in_trailers = not self._left
        return end + 2

    def _read_trailer(self, data: bytes, at: int) -> int | None:
        end = data.find(b"\r\n", at, at + _MOST_TRAILERS)
        if end < 0:
            if len(data) - at >= _MOST_TRAILERS or b"\n" in data[at:]:
                raise Refused(Refusal.BAD_TRAILER)
            return None
        if end == at:
            self.is_over = True
            return end + 2
        field = read_field(data[at:end])
        if field.kind not in (Kind.PLAIN, Kind.HOP) or len(self.trailers) >= 100:
            raise Refused(
                Refusal.BAD_TRAILER
            )  # RFC 9110, section 6.5.1: nothing that says how to read or route
        self.trailers.append(field)
        return end + 2


def as_chunk(data: bytes) -> bytes:
    """Write one chunk; data must not be empty, which would be the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Sequence[Field]) -> bytes:
    """Write the last chunk and the trailers."""
    return b"0\r\n%b\r\n" % b"".join(field.line for field in trailers) if trailers else LAST_CHUNK
