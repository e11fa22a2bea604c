"""Fields of HTTP/2 become a head of HTTP/1.1 that says the same, or nothing (RFC 9113, section 8)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marchproxy_application.http1.refusals import Refusal, Refused
from marchproxy_application.http1.request import read_request
from marchproxy_application.http2.heads import HeadMemory, Malformed, read_head, read_trailers
from marchproxy_application.serving.preparing import prepare_request
from marchproxy_core.routing.paths import normal
from marchproxy_core.services import Http

GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"example.com"), (b":path", b"/a?b")]
POST = [(b":method", b"POST"), *GET[1:]]
CONNECT = [(b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket")]


def changed(name, value):
    """Return the pseudo-headers of a good request with one replaced, or left out."""
    return [(each, value if each == name else old) for each, old in GET if each != name or value is not None]


def test_a_request_is_read():
    head = read_head([*GET, (b"accept", b"*/*")], is_over=True)
    assert (head.method, head.path, head.host) == (b"GET", b"/a?b", b"example.com")
    assert head.first(b"accept") == b"*/*"
    assert not head.has_body
    assert head.keeps_alive


def test_a_body_of_unknown_length_goes_in_chunks():
    assert read_head(POST, is_over=False).is_chunked


def test_a_body_of_a_known_length_is_counted():
    head = read_head([*POST, (b"content-length", b"5")], is_over=False)
    assert head.length == 5
    assert not head.is_chunked


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
def test_a_missing_body_is_said_to_be_empty(method):
    head = read_head([(b":method", method), *GET[1:]], is_over=True)
    assert head.first(b"content-length") == b"0"
    assert not head.has_body


def test_a_length_without_a_body_is_malformed():
    with pytest.raises(Malformed, match="there is none"):
        read_head([*POST, (b"content-length", b"5")], is_over=True)


def test_cookie_crumbs_are_joined():
    head = read_head([*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")], is_over=True)
    assert head.all(b"cookie") == [b"a=1; b=2"]


def test_the_host_field_stands_in_for_a_missing_authority():
    head = read_head([*changed(b":authority", None), (b"host", b"Other.example")], is_over=True)
    assert head.host == b"other.example"
    assert len(head.all(b"host")) == 1


def test_host_and_authority_may_say_the_same():
    assert read_head([*GET, (b"host", b"EXAMPLE.com")], is_over=True).all(b"host") == [b"example.com"]


def test_options_may_ask_for_the_server_as_a_whole():
    head = read_head([(b":method", b"OPTIONS"), *GET[1:3], (b":path", b"*")], is_over=True)
    assert head.path == b"*"


def test_te_trailers_is_let_through_and_is_of_this_connection_alone():
    head = read_head([*GET, (b"te", b"trailers")], is_over=True)
    prepared = prepare_request(head, Http(), prefix=b"/", websocket=False, owned=frozenset(), major=2)
    assert b"trailers" not in prepared.start
    assert b"Via: 2.0 marchproxy" in prepared.start


def test_an_extended_connect_asks_for_an_upgrade():
    fields = [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"theirs")]
    head = read_head([*CONNECT, *fields], is_over=False)
    assert (head.method, head.upgrade, head.has_body) == (b"GET", b"websocket", False)
    assert head.first(b"sec-websocket-version") == b"13"
    assert head.first(b"sec-websocket-key") is None
    prepared = prepare_request(head, Http(), prefix=b"/", websocket=True, owned=frozenset(), major=2)
    assert b"Connection: upgrade\r\nUpgrade: websocket\r\n" in prepared.start


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ([(b":method", b"CONNECT"), (b":authority", b"example.com:443")], Refusal.METHOD_NOT_IMPLEMENTED),
        ([*CONNECT[:-1], (b":protocol", b"connect-udp")], Refusal.METHOD_NOT_IMPLEMENTED),
        ([*POST, (b"expect", b"miracles")], Refusal.UNKNOWN_EXPECTATION),
    ],
)
def test_what_is_not_there_is_refused(fields, refusal):
    with pytest.raises(Refused) as caught:
        read_head(fields, is_over=True)
    assert caught.value.refusal is refusal


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(GET[1:], id="no method"),
        pytest.param(changed(b":scheme", None), id="no scheme"),
        pytest.param(changed(b":path", None), id="no path"),
        pytest.param(changed(b":authority", None), id="no host"),
        pytest.param(changed(b":authority", b""), id="empty host"),
        pytest.param(changed(b":path", b""), id="empty path"),
        pytest.param(changed(b":path", b"a"), id="path without a slash"),
        pytest.param(changed(b":path", b"http://other/"), id="path in absolute form"),
        pytest.param(changed(b":path", b"*"), id="asterisk with GET"),
        pytest.param(changed(b":path", b"/a#b"), id="fragment"),
        pytest.param(changed(b":scheme", b"ftp"), id="other scheme"),
        pytest.param(changed(b":authority", b"user@example.com"), id="user information"),
        pytest.param(changed(b":method", b"GE T"), id="space in the method"),
        pytest.param(changed(b":method", b""), id="empty method"),
        pytest.param([*GET, GET[0]], id="twice"),
        pytest.param([*GET, (b":status", b"200")], id="of an answer"),
        pytest.param([*GET, (b":unknown", b"1")], id="unknown"),
        pytest.param([*GET, (b":protocol", b"websocket")], id="protocol without CONNECT"),
        pytest.param([(b"a", b"b"), *GET], id="behind a field"),
        pytest.param([(b"cookie", b"b"), *GET], id="behind a cookie"),
        pytest.param([*GET, (b"host", b"other.example")], id="host differs"),
        pytest.param([*changed(b":authority", None), (b"host", b"a"), (b"host", b"a")], id="host twice"),
        pytest.param([*GET, (b"Accept", b"*/*")], id="capital letter"),
        pytest.param([*GET, (b"", b"x")], id="empty name"),
        pytest.param([*GET, (b"a b", b"x")], id="space in a name"),
        pytest.param([*GET, (b"a:b", b"x")], id="colon in a name"),
        pytest.param([*GET, (b"a", b" x")], id="space before a value"),
        pytest.param([*GET, (b"a", b"x\t")], id="tab behind a value"),
        pytest.param([*GET, (b"connection", b"close")], id="connection"),
        pytest.param([*GET, (b"keep-alive", b"1")], id="keep-alive"),
        pytest.param([*GET, (b"proxy-connection", b"close")], id="proxy-connection"),
        pytest.param([*GET, (b"transfer-encoding", b"chunked")], id="transfer-encoding"),
        pytest.param([*GET, (b"upgrade", b"h2c")], id="upgrade"),
        pytest.param([*GET, (b"te", b"gzip")], id="te"),
        pytest.param([*POST, (b"content-length", b"1"), (b"content-length", b"1")], id="two lengths"),
        pytest.param([*POST, (b"content-length", b"+1")], id="signed length"),
    ],
)
def test_what_is_malformed_is_not_read(fields):
    with pytest.raises(Malformed):
        read_head(fields, is_over=True)


@pytest.mark.parametrize(
    "evil", [b"\r", b"\n", b"\r\n", b"\0", b"\r\nx: y", b" HTTP/1.1\r\nx: y\r\n\r\nGET / "]
)
@pytest.mark.parametrize(
    "name", [b":method", b":scheme", b":authority", b":path", b"name", b"value", b"cookie"]
)
def test_injections_are_refused(name, evil):
    """The requests of "HTTP/2: the sequel is always worse" (James Kettle, 2021), field by field."""
    if name == b"name":
        fields = [*GET, (b"a" + evil, b"x")]
    elif name in (b"value", b"cookie"):
        fields = [*GET, (name, b"x" + evil + b"y")]
    else:
        fields = changed(name, dict(GET)[name] + evil)
    with pytest.raises(Malformed):
        read_head(fields, is_over=True)


_NAMES = st.one_of(
    st.sampled_from([name for name, _ in CONNECT] + [b"host", b"cookie", b"te", b"content-length", b"x"]),
    st.binary(max_size=6),
)
_VALUES = st.one_of(
    st.sampled_from(
        [b"GET", b"POST", b"http", b"a.b", b"/", b"*", b"CONNECT", b"websocket", b"1", b"trailers"]
    ),
    st.binary(max_size=12),
)


@given(fields=st.lists(st.tuples(_NAMES, _VALUES), max_size=8), is_over=st.booleans(), good=st.booleans())
@example(fields=[(b"x", b"a\r\n\r\nGET /admin HTTP/1.1")], is_over=True, good=True)
def test_whatever_comes_is_one_request_to_a_backend_or_none(fields, is_over, good):
    try:
        head = read_head([*GET, *fields] if good else fields, is_over=is_over)
    except (Malformed, Refused):
        return
    path = head.path if head.path == b"*" else normal(head.path)
    assert path
    prepared = prepare_request(head, Http(), prefix=b"/", websocket=True, owned=frozenset(), major=2)
    block = prepared.start + b"\r\n"
    assert block.count(b"\r\n\r\n") == 1
    again = read_request(block)
    assert (again.method, again.host) == (head.method, head.host)
    assert again.is_chunked is head.is_chunked
    assert again.length == head.length
    # No field was made that did not come.
    came = {name for name, _ in fields} | {b"host", b"content-length", b"transfer-encoding", b"via"}
    came |= {b"connection", b"upgrade"} if head.upgrade else set()
    assert {field.name for field in again.fields} <= came


def test_trailers_are_read():
    (field,) = read_trailers([(b"grpc-status", b"0")])
    assert field.line == b"grpc-status: 0\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        [(b":path", b"/")],
        [(b"content-length", b"1")],
        [(b"host", b"a")],
        [(b"a", b"b\r\nc: d")],
        [(b"A", b"b")],
    ],
)
def test_trailers_that_say_too_much_are_malformed(fields):
    with pytest.raises(Malformed):
        read_trailers(fields)


def test_only_short_heads_are_remembered_and_not_for_ever():
    memory = HeadMemory()
    long = (True, ((b"a", b"x" * 2000),))
    memory.keep(long, "long")
    assert memory.get(long) is None
    for number in range(3000):
        memory.keep((True, ((b"a", b"%d" % number),)), "short")
    assert memory.get((True, ((b"a", b"2999"),))) == "short"
    assert sum(memory.get((True, ((b"a", b"%d" % number),))) is not None for number in range(3000)) <= 1024
    assert memory.get((False, ((b"a", b"2999"),))) is None
    memory.forget()
    assert memory.get((True, ((b"a", b"2999"),))) is None
