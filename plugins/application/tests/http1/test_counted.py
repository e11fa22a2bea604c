"""A body of a known length comes in any pieces, and what is behind it is left for the next message."""

from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.http1.counted import CountedReader


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=16), st.data())
def test_content_is_what_was_sent_and_the_rest_is_the_next_messages(content, behind, data):
    reader = CountedReader(len(content))
    stream, got = content + behind, b""
    while not reader.is_over:
        size = data.draw(st.integers(1, len(stream)))
        piece, stream = stream[:size], stream[size:]
        got += b"".join(reader.feed(piece))
    assert got == content
    assert reader.rest + stream == behind
    assert reader.trailers == []


def test_content_that_went_by_unseen_counts_too():
    reader = CountedReader(5)
    reader.skip(3)
    assert not reader.is_over
    assert b"".join(reader.feed(b"lost")) == b"lo"
    assert reader.is_over
    assert reader.rest == b"st"
