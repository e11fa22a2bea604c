"""Header blocks: ours say what the answer's head said, and repeated ones are decoded to the same (RFC 7541)."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.http1.fields import read_field
from marchproxy_application.http2.answers import ReadyEncoder, block_of, lines_block, trailers_block
from marchproxy_application.http2.remembering import RememberingDecoder

MOST_BYTES = 1 << 16


def decoded(block):
    return [(bytes(name), bytes(value)) for name, value in hpack.Decoder().decode(block, raw=True)]


@pytest.mark.parametrize("status", [100, 103, 200, 204, 206, 301, 304, 400, 404, 418, 431, 500, 503, 599])
def test_a_status_is_said(status):
    assert decoded(block_of(b"HTTP/1.1 %d Phrase of it\r\n" % status)) == [(b":status", b"%d" % status)]


def test_names_are_small_and_connections_are_not_spoken_of():
    start = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nKeep-Alive: 5\r\n"
        b"Transfer-Encoding: chunked\r\nUpgrade: h2c\r\nX-Long: %b\r\nEmpty: \r\n" % (b"x" * 70000)
    )
    assert decoded_all(block_of(start)) == [
        (b":status", b"200"),
        (b"content-type", b"text/plain"),
        (b"x-long", b"x" * 70000),
        (b"empty", b""),
    ]


def decoded_all(block):
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]


def test_an_upgrade_is_told_as_200():
    start = (
        b"HTTP/1.1 101 S\r\nSec-WebSocket-Accept: a\r\nSec-WebSocket-Protocol: chat\r\nUpgrade: websocket\r\n"
    )
    assert decoded(block_of(start, 200)) == [(b":status", b"200"), (b"sec-websocket-protocol", b"chat")]


def test_cookies_are_never_indexed():
    (header,) = hpack.Decoder().decode(lines_block(b"Set-Cookie: a=b\r\n"), raw=True)
    assert not header.indexable


def test_trailers_are_encoded():
    assert decoded(trailers_block([read_field(b"Grpc-Status: 0")])) == [(b"grpc-status", b"0")]


@given(
    st.lists(
        st.tuples(
            st.from_regex(rb"[a-z][a-z0-9-]{0,20}", fullmatch=True),
            st.from_regex(rb"([!-~]{0,300})?", fullmatch=True),
        )
    )
)
def test_any_fields_come_out_as_they_went_in(fields):
    dropped = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    assert decoded(lines_block(lines)) == [field for field in fields if field[0] not in dropped]


def test_the_first_block_gives_up_the_dynamic_table():
    encoder = ReadyEncoder()
    encoder.block = b"\x88"
    assert encoder.encode([]) == b"\x20\x88"
    assert encoder.encode([]) == b"\x88"


_NAMES = st.sampled_from([b"a", b"b", b":path", b"accept"])
_VALUES = st.sampled_from([b"", b"1", b"/", b"*/*", b"x" * 100])
_HEADERS = st.lists(st.tuples(_NAMES, _VALUES, st.booleans()), max_size=4)


@given(st.lists(st.one_of(_HEADERS, st.integers(0, 4096)), max_size=20))
def test_what_is_remembered_is_what_would_be_decoded(steps):
    """An integer has the encoder change its table's size, a list is a block to encode."""
    encoder, plain, remembering = hpack.Encoder(), hpack.Decoder(), RememberingDecoder(MOST_BYTES)
    for step in steps:
        if isinstance(step, int):
            encoder.header_table_size = step
            continue
        for _ in range(2):  # twice, so that there is something to remember
            block = encoder.encode(step)
            assert list(remembering.decode(block, raw=True)) == list(plain.decode(block, raw=True))


def test_a_block_that_decodes_to_too_much_is_refused():
    """A few bytes that stand for the same long field again and again (the bomb of CVE-2016-6581)."""
    decoder = RememberingDecoder(MOST_BYTES)
    encoder = hpack.Encoder()
    decoder.decode(encoder.encode([(b"a", b"x" * 3000)]), raw=True)
    with pytest.raises(hpack.OversizedHeaderListError):
        decoder.decode(encoder.encode([(b"a", b"x" * 3000)] * 100), raw=True)
