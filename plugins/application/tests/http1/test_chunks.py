"""The chunked coding, in whatever pieces it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.http1.chunks import ChunkReader, as_chunk, last_chunk
from marchproxy_application.http1.refusals import Refusal, Refused


def read(*pieces):
    reader = ChunkReader()
    content = b"".join(part for piece in pieces for part in reader.feed(piece))
    return reader, content


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.lists(st.integers(1, 30), max_size=40),
)
def test_what_was_put_in_chunks_comes_out_wherever_it_is_cut(parts, cuts):
    coded = b"".join(map(as_chunk, parts)) + last_chunk([]) + b"next"
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(coded[at : at + cut])
        at += cut
    pieces.append(coded[at:])
    reader, content, rest = ChunkReader(), b"", b""
    for piece in pieces:
        if reader.is_over:
            rest += piece
        else:
            content += b"".join(reader.feed(piece))
            rest += reader.rest
    assert reader.is_over
    assert (content, rest) == (b"".join(parts), b"next")


def test_extensions_are_dropped_and_trailers_kept():
    reader, content = read(b'3 ;a="b"\r\nabc\r\n0;x\r\nX-Sum: 1\r\n\r\n')
    assert content == b"abc"
    assert [field.line for field in reader.trailers] == [b"X-Sum: 1\r\n"]
    assert last_chunk(reader.trailers) == b"0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize(
    "coded",
    [
        b"\r\n",
        b"g\r\n",
        b"0x3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-1\r\n",
        b" 3\r\nabc\r\n",
        b"3_0\r\n",
        b"3\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3\r\nabc\rx",
        b"3 a\r\nabc\r\n",
        b"3;\x00\r\nabc\r\n",
        b"3;a\nb\r\nabc\r\n",
        b"1" * 16 + b"\r\n",
        b"3;" + b"a" * 2000,
    ],
)
def test_what_is_no_chunk_is_refused(coded):
    with pytest.raises(Refused) as refused:
        read(coded)
    assert refused.value.refusal is Refusal.BAD_CHUNK


@pytest.mark.parametrize(
    "trailer", [b"Content-Length: 1", b"Host: a", b"Transfer-Encoding: chunked", b"Forwarded: for=a"]
)
def test_a_trailer_that_says_how_to_read_or_route_is_refused(trailer):
    with pytest.raises(Refused) as refused:
        read(b"0\r\n" + trailer + b"\r\n\r\n")
    assert refused.value.refusal is Refusal.BAD_TRAILER
