"""Requests: what is taken is read as h11 reads it, and what can be read in two ways is refused."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.http1.fields import Kind
from marchproxy_application.http1.refusals import Refusal, Refused
from marchproxy_application.http1.request import end_of_head, read_request


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([*lines, b"", b""])


def refusal_of(block: bytes) -> Refusal:
    with pytest.raises(Refused) as refused:
        read_request(block)
    return refused.value.refusal


def test_a_plain_request():
    read = read_request(head(b"GET /a?b=c HTTP/1.1", b"Host: Example.com:8080", b"Accept:  */* "))
    assert (read.method, read.path, read.host, read.minor) == (b"GET", b"/a?b=c", b"example.com:8080", 1)
    assert [(field.name, field.value, field.line) for field in read.fields] == [
        (b"host", b"Example.com:8080", b"Host: Example.com:8080\r\n"),
        (b"accept", b"*/*", b"Accept: */*\r\n"),
    ]
    assert read.keeps_alive
    assert not read.has_body


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://example.com/a", b"/a", b"example.com"),
        (b"HTTP://Example.com", b"/", b"example.com"),
        (b"https://example.com?q", b"/?q", b"example.com"),
    ],
)
def test_an_absolute_target_has_a_path_and_a_host(target, path, host):
    read = read_request(head(b"GET " + target + b" HTTP/1.1", b"Host: example.com"))
    assert (read.path, read.host) == (path, host)


def test_options_may_be_about_the_server_as_a_whole():
    for target in (b"*", b"http://a.test"):
        assert read_request(head(b"OPTIONS " + target + b" HTTP/1.1", b"Host: a.test")).path == b"*"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], (0, False)),
        ([b"Content-Length: 0"], (0, False)),
        ([b"Content-Length: 17"], (17, False)),
        ([b"Transfer-Encoding: Chunked"], (0, True)),
    ],
)
def test_where_a_body_ends(fields, expected):
    read = read_request(head(b"POST / HTTP/1.1", b"Host: a", *fields))
    assert (read.length, read.is_chunked) == expected


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"foo, Close", False),
        (b"1.0", None, False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_whether_the_connection_stays(version, connection, stays):
    fields = [b"Connection: " + connection] if connection else []
    assert read_request(head(b"GET / HTTP/" + version, b"Host: a", *fields)).keeps_alive is stays


def test_fields_that_connection_names_are_of_this_connection_alone():
    read = read_request(
        head(b"GET / HTTP/1.1", b"Host: a", b"Connection: X-Mine, close", b"Connection: x-too")
    )
    assert read.dropped == {b"x-mine", b"close", b"x-too"}


def test_an_upgrade_counts_where_connection_names_it():
    upgrade = b"Upgrade: WebSocket"
    asked = head(b"GET / HTTP/1.1", b"Host: a", b"Connection: Upgrade", upgrade)
    assert read_request(asked).upgrade == b"websocket"
    assert read_request(head(b"GET / HTTP/1.1", b"Host: a", upgrade)).upgrade == b""
    assert read_request(asked.replace(b"HTTP/1.1", b"HTTP/1.0")).upgrade == b""


def test_who_waits_for_100_continue():
    fields = (b"Host: a", b"Expect: 100-Continue", b"Content-Length: 3")
    assert read_request(head(b"PUT / HTTP/1.1", *fields)).waits
    assert not read_request(head(b"PUT / HTTP/1.0", *fields)).waits


@pytest.mark.parametrize(
    ("lines", "refusal"),
    [
        ([b"GET  / HTTP/1.1", b"Host: a"], Refusal.BAD_REQUEST_LINE),
        ([b"GET / HTTP/1.1 ", b"Host: a"], Refusal.BAD_REQUEST_LINE),
        ([b"GET /", b"Host: a"], Refusal.BAD_REQUEST_LINE),
        ([b"GET\t/ HTTP/1.1", b"Host: a"], Refusal.BAD_REQUEST_LINE),
        ([b"G@T / HTTP/1.1", b"Host: a"], Refusal.BAD_REQUEST_LINE),
        ([b" GET / HTTP/1.1", b"Host: a"], Refusal.BAD_REQUEST_LINE),
        ([b"GET / http/1.1", b"Host: a"], Refusal.BAD_REQUEST_LINE),
        ([b"GET / HTTP/1.10", b"Host: a"], Refusal.BAD_REQUEST_LINE),
        ([b"GET / HTTP/2.0", b"Host: a"], Refusal.BAD_VERSION),
        ([b"GET / HTTP/1.2", b"Host: a"], Refusal.BAD_VERSION),
        ([b"GET a HTTP/1.1", b"Host: a"], Refusal.BAD_TARGET),
        ([b"GET * HTTP/1.1", b"Host: a"], Refusal.BAD_TARGET),
        ([b"GET /a#b HTTP/1.1", b"Host: a"], Refusal.BAD_TARGET),
        ([b"GET /\xc3\xa4 HTTP/1.1", b"Host: a"], Refusal.BAD_TARGET),
        ([b"GET /\x00 HTTP/1.1", b"Host: a"], Refusal.BAD_TARGET),
        ([b"GET http:///a HTTP/1.1", b"Host: a"], Refusal.BAD_TARGET),
        ([b"GET http://u@a/ HTTP/1.1", b"Host: a"], Refusal.BAD_TARGET),
        ([b"GET ftp://a/ HTTP/1.1", b"Host: a"], Refusal.BAD_TARGET),
        ([b"GET http://b/ HTTP/1.1", b"Host: a"], Refusal.BAD_HOST),
        ([b"CONNECT a:443 HTTP/1.1", b"Host: a:443"], Refusal.METHOD_NOT_IMPLEMENTED),
        ([b"GET / HTTP/1.1"], Refusal.NO_HOST),
        ([b"GET / HTTP/1.1", b"Host: a", b"Host: a"], Refusal.NO_HOST),
        ([b"GET / HTTP/1.1", b"Host: a b"], Refusal.BAD_HOST),
        ([b"GET / HTTP/1.1", b"Host: a,b:1:2"], Refusal.BAD_HOST),
        ([b"GET / HTTP/1.1", b"Host: a:65536"], Refusal.BAD_HOST),
        ([b"GET / HTTP/1.1", b"Host: u@a"], Refusal.BAD_HOST),
        ([b"GET / HTTP/1.1", b"Host: a/b"], Refusal.BAD_HOST),
        ([b"GET / HTTP/1.1", b"Host : a"], Refusal.BAD_FIELD_NAME),
        ([b"GET / HTTP/1.1", b"Host: a", b": b"], Refusal.BAD_FIELD_NAME),
        ([b"GET / HTTP/1.1", b"Host: a", b"b"], Refusal.BAD_FIELD_NAME),
        ([b"GET / HTTP/1.1", b"Host: a", b"X: a", b" b"], Refusal.FOLDED_FIELD),
        ([b"GET / HTTP/1.1", b" Host: a"], Refusal.FOLDED_FIELD),
        ([b"GET / HTTP/1.1", b"Host: a", b"X: a\x00b"], Refusal.BAD_FIELD_VALUE),
        ([b"GET / HTTP/1.1", b"Host: a", b"X: a\nY: b"], Refusal.BAD_LINE_END),
        ([b"GET / HTTP/1.1", b"Host: a", b"X: a\rY: b"], Refusal.BAD_LINE_END),
        ([b"GET / HTTP/1.1\nHost: a"], Refusal.BAD_LINE_END),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Content-Length: +1"], Refusal.BAD_LENGTH),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Content-Length: 0x1"], Refusal.BAD_LENGTH),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Content-Length: 1, 1"], Refusal.BAD_LENGTH),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Content-Length:"], Refusal.BAD_LENGTH),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Content-Length: 1", b"Content-Length: 1"], Refusal.BAD_LENGTH),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Content-Length: \xb2"], Refusal.BAD_LENGTH),
        (
            [b"PUT / HTTP/1.1", b"Host: a", b"Content-Length: 1", b"Transfer-Encoding: chunked"],
            Refusal.LENGTH_AND_CODING,
        ),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Transfer-Encoding: gzip, chunked"], Refusal.UNKNOWN_CODING),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked;a=b"], Refusal.UNKNOWN_CODING),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Transfer-Encoding: xchunked"], Refusal.UNKNOWN_CODING),
        (
            [b"PUT / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
            Refusal.UNKNOWN_CODING,
        ),
        ([b"PUT / HTTP/1.0", b"Host: a", b"Transfer-Encoding: chunked"], Refusal.CODING_IN_HTTP_1_0),
        ([b"PUT / HTTP/1.1", b"Host: a", b"Expect: tea"], Refusal.UNKNOWN_EXPECTATION),
    ],
)
def test_what_is_refused(lines, refusal):
    assert refusal_of(head(*lines)) is refusal


NAMES = st.sampled_from(
    [
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Expect",
        b"X-Other",
        b"host ",
        b"X\x00",
    ]
)
VALUES = st.sampled_from(
    [
        b"a",
        b"a:80",
        b"1",
        b"0",
        b"-1",
        b"1,1",
        b"chunked",
        b"Chunked",
        b"gzip",
        b"close",
        b"100-continue",
        b"",
        b" x",
        b"a\nb",
    ]
) | st.binary(max_size=6)
LINES = st.builds(
    lambda name, colon, value: name + colon + value, NAMES, st.sampled_from([b":", b": ", b" :"]), VALUES
)
REQUEST_LINES = st.builds(
    lambda *parts: b"".join(parts),
    st.sampled_from([b"GET", b"PUT", b"OPTIONS", b"get", b"", b"G T"]),
    st.sampled_from([b" ", b"  ", b"\t"]),
    st.sampled_from([b"/", b"/a?b", b"*", b"http://a/", b"a", b"", b"/\x7f"]),
    st.sampled_from([b" ", b"", b"\t"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b""]),
)


@given(REQUEST_LINES, st.lists(LINES, max_size=5))
def test_what_is_taken_h11_takes_and_reads_alike(line, lines):
    block = head(line, *lines)
    try:
        ours = read_request(block)
    except Refused:
        return
    oracle = h11.Connection(h11.SERVER)
    oracle.receive_data(block)
    theirs = oracle.next_event()
    assert isinstance(theirs, h11.Request)
    assert theirs.method == ours.method
    names = [(name, value) for name, value in theirs.headers if name != b"transfer-encoding"]
    assert names == [(field.name, field.value) for field in ours.fields if field.kind != Kind.CODING]
    assert (oracle.their_state is h11.SEND_BODY) is True
    body = oracle._reader
    assert type(body).__name__ == ("ChunkedReader" if ours.is_chunked else "ContentLengthReader")
    if not ours.is_chunked:
        assert body._remaining == ours.length


@pytest.mark.parametrize(
    "lines",
    [
        (b"POST / HTTP/1.1", b"Host: a", b"Connection: upgrade", b"Upgrade: websocket"),
        (b"GET / HTTP/1.1", b"Host: a", b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 1"),
    ],
)
def test_an_upgrade_is_for_a_get_without_a_body(lines):
    assert read_request(head(*lines)).upgrade == b""


def test_nobody_waits_for_100_continue_who_has_no_body():
    assert not read_request(head(b"GET / HTTP/1.1", b"Host: a", b"Expect: 100-continue")).waits


@pytest.mark.parametrize(
    "name",
    [
        b"X_Forwarded_For",
        b"x-forwarded_for",
        b"X.Real.IP",
        b"Transfer_Encoding",
        b"Content_Length",
        b"Content!Length",
    ],
)
def test_a_field_that_cgi_would_take_for_one_with_a_meaning_is_passed_on_to_nobody(name):
    (_, field) = read_request(head(b"GET / HTTP/1.1", b"Host: a", name + b": 5")).fields
    assert field.kind != Kind.PLAIN


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"GET /" + bytes(100).replace(b"\0", b"a"), Refusal.TARGET_TOO_LONG),
        (b"GET / HTTP/1.1\r\nX: " + bytes(100).replace(b"\0", b"a"), Refusal.HEAD_TOO_LARGE),
        (b"GET / HTTP/1.1\r\nX: " + bytes(100).replace(b"\0", b"a") + b"\r\n\r\n", Refusal.HEAD_TOO_LARGE),
    ],
)
def test_what_is_too_large_is_said_by_where_it_is(data, refusal):
    with pytest.raises(Refused) as caught:
        end_of_head(data, 64)
    assert caught.value.refusal is refusal
