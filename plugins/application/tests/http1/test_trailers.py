"""Trailers: a server that takes them for fields of the head learns nothing from them that counts there."""

from __future__ import annotations

import pytest

from marchproxy_application.http1.fields import read_field
from marchproxy_application.http1.trailers import Trailers, passed_on_behind
from marchproxy_core.services import HeaderRules


def passed(
    *lines: bytes, owned: frozenset[bytes] = frozenset(), rules: HeaderRules | None = None
) -> list[bytes]:
    trailers = Trailers([read_field(line) for line in lines])
    return [field.line for field in passed_on_behind(trailers, owned, rules or HeaderRules())]


def test_what_says_something_of_the_body_passes():
    assert passed(b"X-Sum: 1", b"Grpc-Timeout: 1S") == [b"X-Sum: 1\r\n", b"Grpc-Timeout: 1S\r\n"]


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer x",
        b"Cookie: a=b",
        b"Content-Type: text/html",
        b"Content-Encoding: gzip",
        b"If-Match: *",
        b"Range: bytes=0-1",
        b"Sec-Fetch-Site: same-origin",
        b"authorization: Basic x",
        b"X_Forwarded_For: 192.0.2.1",
        b"X.Real.IP: 192.0.2.1",
        b"If_Match: *",
        b"Keep-Alive: 5",
    ],
)
def test_what_counts_in_a_head_does_not_pass(line):
    assert passed(line) == []


def test_what_only_we_may_say_does_not_pass():
    assert passed(b"X-User: admin", b"X-Sum: 1", owned=frozenset({b"x-user"})) == [b"X-Sum: 1\r\n"]


def test_what_the_service_sets_or_removes_does_not_pass():
    rules = HeaderRules(set=(("X-Tier", "gold"),), remove=("X-Debug",), add=(("X-More", "a"),))
    assert passed(b"x-tier: lead", b"X_Debug: 1", b"X-More: b", rules=rules) == [b"X-More: b\r\n"]
