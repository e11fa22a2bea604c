"""Who gets a request: the most special host, then the longest path; and paths are matched as they are sent on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.routing.paths import normal
from marchproxy_core.routing.router import Route, Router

ROUTES = [
    Route(service="any"),
    Route(service="api", host=b"example.com", path=b"/api"),
    Route(service="v2", host=b"example.com", path=b"/api/v2"),
    Route(service="below", host=b"*.example.com"),
    Route(service="deep", host=b"*.a.example.com"),
    Route(service="www", host=b"www.example.com", path=b"/only/"),
    Route(service="six", host=b"[2001:db8::1]"),
]


@pytest.mark.parametrize(
    ("host", "path", "service"),
    [
        (b"example.com", b"/api", "api"),
        (b"example.com:8080", b"/api/users", "api"),
        (b"example.com.", b"/api?x", "api"),
        (b"example.com", b"/apis", "any"),
        (b"example.com", b"/api/v2/x", "v2"),
        (b"example.com", b"/", "any"),
        (b"x.example.com", b"/", "below"),
        (b"x.y.example.com", b"/", "below"),
        (b"x.a.example.com", b"/", "deep"),
        (b"www.example.com", b"/only/this", "www"),
        (b"www.example.com", b"/only", "below"),
        (b"[2001:db8::1]:80", b"/", "six"),
        (b"", b"/", "any"),
    ],
)
def test_which_route_a_request_takes(host, path, service):
    found = Router(ROUTES).find(host, path)
    assert found is not None
    assert found.service == service


def test_there_may_be_none():
    assert Router(ROUTES[1:]).find(b"other.test", b"/") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", b"/"),
        (b"/a/b?c/../d", b"/a/b?c/../d"),
        (b"/a/./b/../c", b"/a/c"),
        (b"/a/b/..", b"/a/"),
        (b"/../..", b"/"),
        (b"/public/%2e%2E/admin", b"/admin"),
        (b"/%7euser/%41%2f%c3", b"/~user/A%2F%C3"),
        (b"//a//b", b"//a//b"),
        (b"/a/.b/..c", b"/a/.b/..c"),
        (b"/%zz%", b"/%25zz%25"),
        (b"/%%34%31", b"/%2541"),
    ],
)
def test_the_normal_form_of_a_path(path, expected):
    assert normal(path) == expected


@given(st.lists(st.sampled_from([b"/", b".", b"..", b"a", b"%2e", b"%2f", b"%41", b"?", b"%"]), max_size=12))
def test_the_normal_form_is_its_own_and_leaves_no_dots(parts):
    path = normal(b"/" + b"".join(parts))
    assert normal(path) == path
    segments = path.partition(b"?")[0].split(b"/")
    assert b"." not in segments
    assert b".." not in segments


def test_the_server_as_a_whole_is_for_who_takes_every_path():
    router = Router(ROUTES)
    assert [router.find(host, b"*").service for host in (b"example.com", b"www.example.com")] == [
        "any",
        "below",
    ]
