"""What is written to either side: what was read, without what is of one connection alone, and what we say ourselves."""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.http1.request import read_request
from marchproxy_application.http1.response import read_response
from marchproxy_application.http1.writing import origin_lines
from marchproxy_application.serving.preparing import prepare_answer, prepare_request
from marchproxy_core.services import HeaderRules, Http


def written_request(head, http=None):
    """A request as an exchange sends it: the part that is prepared, and that of this request alone."""
    prepared = prepare_request(head, http or Http(), prefix=b"/", websocket=False, owned=frozenset())
    origin = origin_lines(client=b"192.0.2.7", scheme=b"https", port=443, host=head.host)
    return prepared.start + origin + b"X-Request-Id: id-1\r\n\r\n"


def written_answer(head, rules=None):
    """The prepared part of an answer, as a head of its own."""
    return prepare_answer(head, rules or HeaderRules()).start + b"\r\n"


def fields_of(block):
    return [tuple(line.split(b": ", 1)) for line in block.split(b"\r\n")[1:-2]]


def test_a_request_keeps_its_fields_and_gets_ours():
    head = read_request(
        b"POST /a HTTP/1.1\r\nHost: A.test\r\nX-Own: 1\r\nConnection: x-mine, keep-alive\r\n"
        b"X-Mine: 2\r\nTE: trailers\r\n"
        b"X-Forwarded-For: 10.0.0.1\r\nForwarded: for=evil\r\nVia: 1.0 before\r\nContent-Length: 3\r\n\r\n"
    )
    assert fields_of(written_request(head)) == [
        (b"Host", b"a.test"),
        (b"X-Own", b"1"),
        (b"Content-Length", b"3"),
        (b"Via", b"1.0 before, 1.1 marchproxy"),
        (b"Forwarded", b'for=192.0.2.7;proto=https;host="a.test"'),
        (b"X-Forwarded-For", b"192.0.2.7"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"a.test"),
        (b"X-Forwarded-Port", b"443"),
        (b"X-Request-Id", b"id-1"),
    ]


def test_an_answer_keeps_its_fields_and_says_how_long_it_is():
    head = read_response(
        b"HTTP/1.0 200 Fine\r\nServer: b\r\nConnection: keep-alive, x-b\r\nX-B: 1\r\nContent-Length: 5\r\n\r\n",
        b"GET",
    )
    said = written_answer(head)
    assert said.startswith(b"HTTP/1.1 200 Fine\r\n")
    assert fields_of(said) == [
        (b"Server", b"b"),
        (b"Content-Length", b"5"),
        (b"Via", b"1.0 marchproxy"),
    ]


def test_an_answer_without_a_length_is_written_for_who_reads_chunks_and_for_who_does_not():
    head = read_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET")
    answer = prepare_answer(head, HeaderRules())
    assert not answer.is_delimited
    assert b"Transfer-Encoding" not in answer.start
    assert answer.start_chunked == answer.start + b"Transfer-Encoding: chunked\r\n"


def test_rules_remove_set_and_add():
    rules = HeaderRules(set=(("X-Set", "new"),), add=(("X-Add", "more"),), remove=("X-Gone",))
    fields = b"X-Set: old\r\nX-Add: one\r\nX-Gone: 1\r\n"
    request = read_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
    wanted = [(b"X-Add", b"one"), (b"X-Set", b"new"), (b"X-Add", b"more")]
    assert fields_of(written_request(request, Http(request_headers=rules)))[1:4] == wanted
    answer = read_response(b"HTTP/1.1 204 No Content\r\n" + fields + b"\r\n", b"GET")
    assert fields_of(written_answer(answer, rules))[:3] == wanted


TOKENS = st.text("abcXYZ-_", min_size=1, max_size=8).map(str.encode)
VALUES = st.text('abc XYZ,;="\t', max_size=12).map(str.encode)


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=6), st.integers(0, 9), st.booleans())
def test_what_is_written_reads_back_as_it_was_by_us_and_by_h11(more, length, is_chunked):
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % length
    lines = [b"PUT /p?q HTTP/1.1", b"Host: a", framing, *(b"x-%b: %b" % one for one in more), b"", b""]
    head = read_request(b"\r\n".join(lines))
    written = written_request(head)
    again = read_request(written)
    assert (again.method, again.path, again.host) == (head.method, head.path, head.host)
    assert (again.length, again.is_chunked) == (head.length, head.is_chunked)
    own = [
        (name, value)
        for name, value, _, _ in again.fields
        if name.startswith(b"x-") and b"forwarded" not in name
    ]
    assert own[:-1] == [(b"x-" + name.lower(), value.strip(b" \t")) for name, value in more]
    oracle = h11.Connection(h11.SERVER)
    oracle.receive_data(written)
    assert isinstance(oracle.next_event(), h11.Request)
