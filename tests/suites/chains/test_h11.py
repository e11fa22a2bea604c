"""h11 as oracle: it reads what we take as the same messages, or takes less."""

from __future__ import annotations

import re

import h11
import pytest

from marchproxy_core.routing.paths import normal
from tests.suites.chains.corpus import CASES
from tests.suites.chains.corpus.case import Case, Want

_ABSOLUTE = re.compile(rb"(?i)https?://[^/?]*")
_TAKEN = [case for case in CASES if case.seen]


_TAKES_LESS = {
    # RFC 9112, section 2.2, would have servers ignore them.
    "an empty line in front",
    "empty lines in front",
    "an empty line between",
    "empty lines between",
    # Bad white space (section 7.1.1), which a recipient must take.
    "chunks: an extension behind white space",
    # It closes after each request in HTTP/1.0.
    "connection: HTTP/1.0 stays",
}


@pytest.mark.parametrize("case", _TAKEN, ids=lambda case: case.name)
def test_h11_reads_the_same(case):
    wanted = [(want.method, want.target, want.body) for want in case.seen]
    read = read_by_h11(case)
    if case.refused is not None:
        read = read[: len(wanted)]  # it takes some that we refuse
    assert read == wanted[: len(read)]
    assert (len(read) < len(wanted)) == (case.name in _TAKES_LESS)


def read_by_h11(case: Case) -> list[tuple[bytes, bytes, bytes]]:
    """Return the whole messages that h11 finds, up to what it refuses or where the connection has to close."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)
    server.receive_data(case.raw)
    found = []
    while (message := read_message(server)) is not None:
        if message[0] == b"CONNECT":
            break
        found.append(message)
        server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        server.send(h11.EndOfMessage())
        if server.our_state is not h11.DONE:
            break
        server.start_next_cycle()
    return found


def read_message(server: h11.Connection) -> tuple[bytes, bytes, bytes] | None:
    head, body = None, b""
    try:
        while (event := server.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return head.method, in_origin_form(head), body
    except h11.RemoteProtocolError:
        pass
    return None


def in_origin_form(head: h11.Request) -> bytes:
    target = _ABSOLUTE.sub(b"", head.target, count=1) if _ABSOLUTE.match(head.target) else head.target
    if (not target and head.method == b"OPTIONS") or target == b"*":
        return b"*"
    return normal(target if target.startswith(b"/") else b"/" + target)


def test_the_corpus_is_one():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 500
    assert all(isinstance(want, Want) for case in CASES for want in case.seen)
