"""The status parser against whole answers, split answers and noise."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marchproxy_core.backends import http_status

ANSWER = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    b"HTTP/1.1 207 Multi\xe4\r\nA: b\r\n\r\n"
)


def test_no_prefix_of_an_answer_is_taken_for_another():
    answers = [http_status.status_of(ANSWER[:length]) for length in range(len(ANSWER) + 1)]
    told = answers.index(207)
    assert answers == [None] * told + [207] * (len(ANSWER) + 1 - told)
    assert ANSWER[:told].endswith(b"Multi\xe4\r\n")


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: b"HTTP/1.1 " + tail))
@example(b"HTTP/1.1 100 \r\n\r\n" * 2000)
@example(b"HTTP/1.1 200 " + b"x" * http_status.MAX_HEAD)
@settings(deadline=None)
def test_noise_is_a_status_a_reason_or_not_yet_decided(data):
    try:
        status = http_status.status_of(data)
    except http_status.BadAnswer:
        return
    assert status is None or 101 <= status <= 599
    assert status is not None or len(data) < http_status.MAX_HEAD


@given(st.binary(min_size=1, max_size=100), st.integers(0, 100))
@settings(deadline=None)
def test_a_verdict_does_not_change_with_more_bytes(tail, length):
    whole = b"HTTP/1.1 " + tail + b"\r\n"
    try:
        early = http_status.status_of(whole[:length])
    except http_status.BadAnswer:
        with pytest.raises(http_status.BadAnswer):
            http_status.status_of(whole)
        return
    if early is not None:
        assert http_status.status_of(whole) == early


@pytest.mark.parametrize("path", ["", "x", "/a b", "/\r\n", "/\x00", "/ä", "/a\t"])
def test_paths_that_http_does_not_allow(path):
    with pytest.raises(ValueError, match="does not allow"):
        http_status.request("host", path)


@pytest.mark.parametrize("host", ["", "a b", "a\r\nX: y", "ä"])
def test_hosts_that_http_does_not_allow(host):
    with pytest.raises(ValueError, match="does not allow"):
        http_status.request(host, "/")
