"""Clients of HTTP/2, this proxy, and real servers behind it that speak HTTP/1.1."""

from __future__ import annotations

import pytest

from tests.suites.chains.answers import converse, read_answers
from tests.suites.chains.corpus.http2 import STREAMS
from tests.suites.chains.http2_client import ask
from tests.suites.chains.judging import MARKER, assert_clean, is_as_wanted
from tests.suites.chains.servers import BACKENDS
from tests.suites.chains.telling import answer_to


@pytest.mark.parametrize("backend", [backend.name for backend in BACKENDS])
@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_a_stream_is_one_request_or_none(chains, backend, stream):
    chain = chains[backend]
    chain.told.take()
    status, after = ask(chain.port, stream)
    seen = chain.told.take()
    (marked,) = read_answers(converse(chain.port, MARKER), [b"GET"])
    assert [each.target for each in chain.told.take()] == ["/marker"]
    assert marked.body == answer_to("GET", "/marker")

    ours = [each for each in seen if each.target != "/after"]
    assert len(seen) - len(ours) == (after == 200)
    if stream.seen is None:
        assert ours == []
        assert status != 200
    elif status == 200:
        (one,) = ours
        assert is_as_wanted(one, stream.seen)
        assert_clean(one)
    else:
        assert ours == []
        assert status >= 400, "refused, though there is nothing wrong with it"


def test_every_backend_takes_what_is_not_odd(chains):
    not_odd = [
        stream for stream in STREAMS if stream.name in ("GET", "HEAD", "a body with its length", "no body")
    ]
    assert len(not_odd) == 4
    assert {ask(chain.port, stream) for chain in chains.values() for stream in not_odd} == {(200, 200)}
