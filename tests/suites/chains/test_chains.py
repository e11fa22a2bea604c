"""Clients, this proxy, and real servers behind it: no request may be seen as two by anyone."""

from __future__ import annotations

import pytest

from tests.suites.chains.answers import Answer, converse, read_answers
from tests.suites.chains.corpus import CASES, Case
from tests.suites.chains.judging import MARKER, assert_clean, is_as_wanted, is_declined, is_of_application
from tests.suites.chains.servers import BACKENDS
from tests.suites.chains.telling import Seen, answer_to


@pytest.fixture(params=[backend.name for backend in BACKENDS], scope="module")
def chain(request, chains):
    return chains[request.param]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_is_seen_once_or_not_at_all(chain, case):
    chain.told.take()
    answers = read_answers(converse(chain.port, case.raw), [want.method for want in case.seen])
    seen = chain.told.take()
    (marked,) = read_answers(converse(chain.port, MARKER), [b"GET"])

    # On the connection that the backend had before, where whatever was smuggled would come first.
    assert [each.target for each in chain.told.take()] == ["/marker"]
    assert marked.body == answer_to("GET", "/marker"), marked
    assert_as_read(case, seen, answers)


@pytest.mark.parametrize("case", [case for case in CASES if len(case.raw) < 2000], ids=lambda case: case.name)
def test_it_is_the_same_byte_by_byte(chains, case):
    chain = chains["nginx"]
    chain.told.take()
    answers = read_answers(converse(chain.port, case.raw, step=1), [want.method for want in case.seen])
    assert_as_read(case, chain.told.take(), answers)


def assert_as_read(case: Case, seen: list[Seen], answers: list[Answer]) -> None:
    left = list(seen)
    for number, want in enumerate(case.seen):
        assert number < len(answers), "a request was never answered"
        if is_of_application(answers[number], want):
            assert left
            one = left.pop(0)
            assert is_as_wanted(one, want), (one, want)
            expected = b"" if want.method == b"HEAD" else answer_to(one.method, one.target)
            assert answers[number].body == expected
            assert_clean(one)
        else:
            assert is_declined(answers[number], want), (want, seen, answers)
    assert left == [], "somebody saw a request that is none"
    rest = answers[len(case.seen) :]
    if case.refused is None:
        assert rest == []
    elif rest or case.cut is None:
        assert [answer.status for answer in rest] == [case.refused]
        assert not rest[0].is_of_backend


def test_every_backend_takes_what_is_not_odd(chain):
    for case in CASES:
        if case.name in _NOT_ODD:
            read_answers(converse(chain.port, case.raw), [want.method for want in case.seen])
            seen = chain.told.take()
            assert len(seen) == len(case.seen), case.name
            assert all(map(is_as_wanted, seen, case.seen)), case.name


_NOT_ODD = {
    "length",
    "chunked",
    "HTTP/1.0",
    "path: /a/../b",
    "host: a.test:80",
    "two",
    "bodies of both kinds",
    "HEAD before",
}
