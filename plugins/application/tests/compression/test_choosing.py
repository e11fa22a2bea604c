"""Which coding a client gets, by RFC 9110, section 12.5.3, and what is worth one."""

from __future__ import annotations

import gzip

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.compression.choosing import accepted, is_compressible
from marchproxy_application.compression.coders import coder_of
from marchproxy_application.http1.response import read_response
from marchproxy_core.services import Compression

ALL = (Compression.BR, Compression.ZSTD, Compression.GZIP)
DECODE = {
    Compression.GZIP: gzip.decompress,
    Compression.BR: brotli.decompress,
    Compression.ZSTD: lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize(
    ("wishes", "chosen"),
    [
        ([], None),
        ([b""], None),
        ([b"gzip"], Compression.GZIP),
        ([b"gzip, br"], Compression.BR),
        ([b"gzip", b"br"], Compression.BR),
        ([b"gzip;q=1.0, br;q=0.5"], Compression.GZIP),
        ([b"GZIP ; q=0.3"], Compression.GZIP),
        ([b"br;q=0, *"], Compression.ZSTD),
        ([b"*;q=0"], None),
        ([b"identity"], None),
        ([b"br;q=2, gzip;q=x"], None),
        ([b"deflate, compress"], None),
    ],
)
def test_the_highest_weight_wins_then_our_order(wishes, chosen):
    assert accepted(wishes, ALL) is chosen


def test_only_what_is_offered_is_chosen():
    assert accepted([b"gzip, br, zstd"], (Compression.GZIP,)) is Compression.GZIP
    assert accepted([b"br"], (Compression.GZIP,)) is None


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_any_wish_is_read_without_failing(wishes):
    assert accepted(wishes, ALL) in (None, *ALL)


def head_of(fields, status=b"200", method=b"GET"):
    return read_response(b"HTTP/1.1 %b OK\r\n%b\r\n" % (status, fields), method)


@pytest.mark.parametrize(
    ("fields", "status", "worth"),
    [
        (b"Content-Type: text/html; charset=utf-8\r\nContent-Length: 1000\r\n", b"200", True),
        (b"Content-Type: application/problem+json\r\nContent-Length: 1000\r\n", b"404", True),
        (b"Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n", b"200", True),
        (b"Content-Type: text/html\r\nContent-Length: 10\r\n", b"200", False),
        (b"Content-Type: image/png\r\nContent-Length: 1000\r\n", b"200", False),
        (b"Content-Length: 1000\r\n", b"200", False),
        (b"Content-Type: text/html\r\nContent-Length: 1000\r\nContent-Encoding: gzip\r\n", b"200", False),
        (
            b"Content-Type: text/html\r\nContent-Length: 900\r\nContent-Range: bytes 0-899/1000\r\n",
            b"206",
            False,
        ),
        (
            b"Content-Type: text/html\r\nContent-Length: 1000\r\nCache-Control: No-Transform\r\n",
            b"200",
            False,
        ),
        (b"Content-Type: text/html\r\n", b"304", False),
    ],
)
def test_text_that_is_long_enough_and_may_be_changed_is_worth_it(fields, status, worth):
    assert is_compressible(head_of(fields, status)) is worth


@given(st.sampled_from(ALL), st.lists(st.binary(max_size=5000), max_size=5), st.booleans())
def test_what_was_coded_is_what_comes_out(coding, pieces, flushes):
    coder = coder_of(coding)
    coded = (
        b"".join(coder.code(piece) + (coder.flush() if flushes else b"") for piece in pieces) + coder.end()
    )
    assert DECODE[coding](coded) == b"".join(pieces)
