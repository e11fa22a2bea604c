"""A request means the same to HPACK's own decoder, and no answer says in HTTP/1.1 what it did not in HTTP/2."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marchproxy_application.backends.http2_heads import answer_block, read_answer, request_block
from marchproxy_application.http1.refusals import Refused
from marchproxy_application.http2.heads import Malformed

names = st.from_regex(rb"\A[a-z][a-z0-9-]{0,20}\Z")
values = st.from_regex(rb"\A[!-~]([ -~]{0,200}[!-~])?\Z")
anything = st.one_of(st.binary(max_size=20), values, names)
OF_CONNECTIONS = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


@given(
    st.sampled_from([b"GET", b"POST", b"PATCH"]),
    st.from_regex(rb"\A/[!-\"$-~]{0,100}\Z"),
    st.lists(st.tuples(names, values), max_size=8),
    st.sampled_from([b"http", b"https"]),
)
def test_a_request_is_what_hpack_reads(method, path, fields, scheme):
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    block = request_block(b"%b %b HTTP/1.1\r\nHost: a.test\r\n%b" % (method, path, lines), scheme)
    read = [(bytes(name), bytes(value)) for name, value in hpack.Decoder().decode(block, raw=True)]
    left_out = OF_CONNECTIONS | {b"host", b"te", b"http2-settings"}
    assert read == [
        (b":method", method),
        (b":scheme", scheme),
        (b":authority", b"a.test"),
        (b":path", path),
        *[(name, value) for name, value in fields if name not in left_out],
    ]


def test_no_authority_for_who_named_none():
    read = dict(hpack.Decoder().decode(request_block(b"GET / HTTP/1.1\r\nHost: \r\n", b"http"), raw=True))
    assert b":authority" not in read


@given(st.lists(st.tuples(anything, anything), max_size=5))
@example([(b"x", b"1\r\nset-cookie: a")])
@example([(b"x: y\r\nz", b"1")])
def test_an_answer_keeps_its_fields_or_is_refused(fields):
    try:
        head = read_answer(answer_block([(b":status", b"200"), *fields]), b"GET")
    except (Malformed, Refused):
        return
    assert [(field.name, field.value) for field in head.fields] == fields
    assert (head.status, head.minor) == (200, 2)


@given(st.lists(st.tuples(names, values), max_size=5))
def test_an_answer_of_plain_fields_is_read(fields):
    fields = [(name, value) for name, value in fields if name not in OF_CONNECTIONS | {b"content-length"}]
    head = read_answer(answer_block([(b":status", b"404"), *fields]), b"GET")
    assert (head.status, head.reason, head.length) == (404, b"Not Found", None)
    assert [(field.name, field.value) for field in head.fields] == fields


@pytest.mark.parametrize("status", [b"", b"20", b"2000", b"abc", b"101", b" 20"])
def test_a_status_that_is_none(status):
    with pytest.raises((Malformed, Refused)):
        read_answer(answer_block([(b":status", status)]), b"GET")
