"""Bytes that nobody thought of: cases with pieces put in, taken out and changed, which every server sees as we do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.suites.chains.answers import converse, read_answers
from tests.suites.chains.corpus import CASES
from tests.suites.chains.corpus.case import SMUGGLED
from tests.suites.chains.judging import MARKER, is_as_wanted, is_declined, is_of_application
from tests.suites.chains.reading import read_all
from tests.suites.chains.servers import BACKENDS
from tests.suites.chains.telling import answer_to

_PIECES = (
    *(bytes((byte,)) for byte in b"\r\n \t\0\x0b\x7f\xff:;,%/?#*=-_.\"'()[]{}<>0123456789AFaf"),
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Host: b.test\r\n",
    b" HTTP/1.1",
    SMUGGLED,
)
_SHORT = [case.raw for case in CASES if 0 < len(case.raw) < 1000]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A case, changed in one to four places."""
    raw = draw(st.sampled_from(_SHORT))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        cut = draw(st.integers(0, 3))
        raw = raw[:at] + draw(st.sampled_from((b"", *_PIECES))) + raw[at + cut :]
    return raw


@pytest.mark.parametrize("backend", [backend.name for backend in BACKENDS])
def test_every_server_sees_what_we_read(chains, backend):
    chain = chains[backend]

    @settings(max_examples=150, deadline=None)
    @given(raw=mutated())
    def sees(raw: bytes) -> None:
        wants = read_all(raw)
        chain.told.take()
        answers = read_answers(converse(chain.port, raw), [want.method for want in wants])
        left = chain.told.take()
        (marked,) = read_answers(converse(chain.port, MARKER), [b"GET"])
        assert [each.target for each in chain.told.take()] == ["/marker"]
        assert marked.body == answer_to("GET", "/marker")
        # There may be fewer answers: who refuses a request whose body is on its way closes behind his answer.
        for want, answer in zip(wants, answers, strict=False):
            if is_of_application(answer, want):
                assert is_as_wanted(left.pop(0), want)
            else:
                assert is_declined(answer, want)
        assert left == []

    sees()
