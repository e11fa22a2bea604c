"""What unsafe methods and purges make unusable: what is stored, what is on its way (RFC 9111, section 4.4)."""

from __future__ import annotations

import pytest

from marchproxy_application.cache.messages import make_field
from marchproxy_application.cache.storable import Unstored

FRESH = (b"cache-control", b"max-age=60")
PATHS = (b"/a/b", b"/a/c", b"/d", b"/d?q")


@pytest.fixture
def full(world):
    world.response = (200, [FRESH], b"x")
    for path in PATHS:
        world.get(path=path)
    return world


def gone(world):
    return [path for path in PATHS if not world.get(path=path).from_cache]


@pytest.mark.parametrize(
    ("method", "status", "fields", "expected"),
    [
        (b"POST", 200, [], [b"/a/b"]),
        (b"PUT", 303, [], [b"/a/b"]),
        (b"DELETE", 204, [], [b"/a/b"]),
        (b"M-SEARCH", 200, [], [b"/a/b"]),
        (b"POST", 500, [(b"location", b"/d")], []),
        (b"POST", 404, [], []),
        (b"OPTIONS", 200, [(b"location", b"/d")], []),
        (b"POST", 201, [(b"location", b"/d")], [b"/a/b", b"/d"]),
        (b"POST", 201, [(b"location", b"c")], [b"/a/b", b"/a/c"]),
        (b"POST", 201, [(b"content-location", b"../d?q#part")], [b"/a/b", b"/d?q"]),
        (b"POST", 201, [(b"location", b"HTTP://Example.com:80/%64")], [b"/a/b", b"/d"]),
        (b"POST", 201, [(b"location", b"/d"), (b"content-location", b"c")], [b"/a/b", b"/a/c", b"/d"]),
        (b"POST", 201, [(b"location", b"https://example.com/d")], [b"/a/b"]),
        (b"POST", 201, [(b"location", b"//other.test/d")], [b"/a/b"]),
        (b"POST", 201, [(b"location", b"http://[::1")], [b"/a/b"]),
    ],
)
def test_unsafe_methods(full, method, status, fields, expected):
    full.response = (status, fields, b"")
    full.get(path=b"/a/b", method=method)
    full.response = (200, [FRESH], b"x")
    full.now_s += 1
    assert gone(full) == expected
    assert full.cache.counters.invalidated == len(expected)


@pytest.mark.parametrize(
    ("purge", "expected"),
    [
        (lambda cache, now_s: cache.purge_url((b"http", b"example.com", b"/d"), now_s), [b"/d"]),
        (lambda cache, now_s: cache.purge_url((b"https", b"example.com", b"/d"), now_s), []),
        (lambda cache, now_s: cache.purge_prefix(b"example.com", b"/a/", now_s), [b"/a/b", b"/a/c"]),
        (lambda cache, now_s: cache.purge_prefix(None, b"/d", now_s), [b"/d", b"/d?q"]),
        (lambda cache, now_s: cache.purge_prefix(b"other.test", b"/", now_s), []),
        (lambda cache, now_s: cache.purge_all(now_s), list(PATHS)),
    ],
)
def test_purges(full, purge, expected):
    assert purge(full.cache, full.now_s) == len(expected)
    assert full.cache.counters.purged == len(expected)
    full.now_s += 1
    assert gone(full) == expected


def test_all_variants_go(world):
    world.response = (200, [FRESH, (b"vary", b"foo")], b"x")
    for value in (b"1", b"2"):
        world.get((b"foo", value))
    assert world.cache.purge_url((b"http", b"example.com", b"/"), world.now_s) == 2
    assert world.cache.size_bytes == 0


@pytest.mark.parametrize("change", ["post", "url", "all"])
def test_what_was_asked_for_before_is_not_stored_after(world, change):
    fetch = world.look()
    sent_s = world.now_s
    world.now_s += 1
    if change == "post":
        world.cache.invalidate(world.request(method=b"POST"), 200, [], world.now_s)
    elif change == "url":
        world.cache.purge_url((b"http", b"example.com", b"/"), world.now_s)
    else:
        world.cache.purge_all(world.now_s)
    times = {"request_time_s": sent_s, "response_time_s": world.now_s + 1}
    saving = world.cache.begin(fetch, 200, b"", [make_field(*FRESH)], **times)
    assert saving.finish() is None
    assert saving.unstored is Unstored.INVALIDATED
    assert len(world.cache) == 0


def test_what_was_changed_is_not_brought_back_by_a_304(world):
    world.response = (200, [FRESH, (b"etag", b'"a"')], b"x")
    world.get()
    world.now_s += 61
    validate = world.look()
    sent_s = world.now_s
    world.now_s += 1
    world.cache.invalidate(world.request(method=b"POST"), 200, [], world.now_s)
    hit = world.cache.freshen(validate, [], request_time_s=sent_s, response_time_s=world.now_s)
    assert hit.body == b"x"
    assert len(world.cache) == 0


def test_changes_of_many_urls_are_remembered_on_the_safe_side(world):
    fetch = world.look(path=b"/0")
    sent_s = world.now_s
    for number in range(5000):
        path = b"/%d" % number
        world.cache.invalidate(world.request(method=b"POST", path=path), 200, [], sent_s + 1)
    times = {"request_time_s": sent_s, "response_time_s": sent_s + 2}
    assert world.cache.begin(fetch, 200, b"", [make_field(*FRESH)], **times).finish() is None
