"""Requests as they are written on a command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.explaining.asked import asked_of


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path"),
    [
        ("http://a.test", "http", "a.test", 80, "/"),
        ("HTTPS://A.Test:8443/b/../c?d#e", "https", "a.test:8443", 8443, "/c?d"),
        ("http://[2001:DB8::1]/", "http", "[2001:db8::1]", 80, "/"),
        ("http://a.test?b", "http", "a.test", 80, "/?b"),
    ],
)
def test_urls(url, scheme, host, port, path):
    asked = asked_of("GET", url, ())
    assert (asked.scheme, asked.host, asked.port, asked.path) == (scheme, host, port, path)


@pytest.mark.parametrize(
    ("method", "url", "header"),
    [
        ("G T", "http://a/", "A: 1"),
        ("GET", "a.test/", "A: 1"),
        ("GET", "ftp://a.test/", "A: 1"),
        ("GET", "http://me@a.test/", "A: 1"),
        ("GET", "http://a.test:99999/", "A: 1"),
        ("GET", "http://a.test/\x00", "A: 1"),
        ("GET", "http://a.test/", "no colon"),
        ("GET", "http://a.test/", "A b: 1"),
        ("GET", "http://a.test/", "A: 1\r\nB: 2"),
    ],
)
def test_what_is_no_request(method, url, header):
    with pytest.raises(ValueError, match="want"):
        asked_of(method, url, (header,))


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_request_or_is_refused(url, header):
    try:
        asked = asked_of("GET", f"http://a.test/{url}", (header,))
    except ValueError:
        return
    assert asked.path.startswith("/")
    assert all("\n" not in value for _, value in asked.fields)
