"""Coders of bodies that come in pieces."""

from __future__ import annotations

import zlib
from typing import Protocol

import brotli
import zstandard

from marchproxy_core.services import Compression

_GZIP = 31
"""Window bits of zlib for the format of RFC 1952."""


class Coder(Protocol):
    """Codes one body."""

    def code(self, data: bytes) -> bytes:
        """Take a piece; return what there is of the coded body, maybe nothing."""
        ...

    def flush(self) -> bytes:
        """Return all of what was taken, so that a client can read it now."""
        ...

    def end(self) -> bytes:
        """Return the rest."""
        ...


def coder_of(compression: Compression) -> Coder:
    """Make a coder, at levels at which a worker's core codes some 50 to 300 MB a second."""
    return _CODERS[compression]()


class _Gzip:
    def __init__(self) -> None:
        self._coder = zlib.compressobj(level=4, wbits=_GZIP)

    def code(self, data: bytes) -> bytes:
        return self._coder.compress(data)

    def flush(self) -> bytes:
        return self._coder.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._coder.flush(zlib.Z_FINISH)


class _Brotli:
    def __init__(self) -> None:
        self._coder = brotli.Compressor(quality=4)

    def code(self, data: bytes) -> bytes:
        return bytes(self._coder.process(data))

    def flush(self) -> bytes:
        return bytes(self._coder.flush())

    def end(self) -> bytes:
        return bytes(self._coder.finish())


class _Zstd:
    def __init__(self) -> None:
        # RFC 8878, section 7.1.5: windows above 8 MiB need not be accepted; level 3 stays below.
        self._coder = zstandard.ZstdCompressor(level=3).compressobj()

    def code(self, data: bytes) -> bytes:
        return self._coder.compress(data)

    def flush(self) -> bytes:
        return self._coder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._coder.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)


_CODERS: dict[Compression, type[_Gzip] | type[_Brotli] | type[_Zstd]] = {
    Compression.GZIP: _Gzip,
    Compression.BR: _Brotli,
    Compression.ZSTD: _Zstd,
}
