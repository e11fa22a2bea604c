"""What a shared cache stores of which responses, and what it sends again (RFC 9111, section 3)."""

from __future__ import annotations

import pytest

from marchproxy_application.cache.answers import Fetch, Hit
from marchproxy_application.cache.messages import make_field
from marchproxy_application.cache.storable import Unstored

AUTHORIZED = (b"authorization", b"x")
FRESH = (b"cache-control", b"max-age=60")


@pytest.mark.parametrize(
    ("method", "asked", "status", "fields", "expected"),
    [
        (b"GET", [], 200, [FRESH], None),
        (b"GET", [], 299, [FRESH], None),
        (b"GET", [], 404, [FRESH], None),
        (b"GET", [], 599, [FRESH], None),
        (b"GET", [], 599, [(b"cache-control", b"max-age=60, must-understand")], Unstored.STATUS),
        (b"GET", [], 200, [(b"cache-control", b"max-age=60, must-understand, no-store")], None),
        (b"HEAD", [], 200, [FRESH], Unstored.METHOD),
        (b"GET", [(b"range", b"bytes=0-1")], 206, [FRESH], Unstored.PARTIAL),
        (b"GET", [(b"if-none-match", b'"a"')], 304, [FRESH], Unstored.STATUS),
        (b"GET", [], 200, [], Unstored.NOT_FRESH),
        (b"GET", [], 200, [(b"cache-control", b"max-age=0")], Unstored.NOT_FRESH),
        (b"GET", [], 200, [FRESH, (b"age", b"60")], Unstored.NOT_FRESH),
        (b"GET", [], 200, [(b"cache-control", b"no-cache")], Unstored.NOT_FRESH),
        (b"GET", [], 200, [(b"cache-control", b"no-cache"), (b"etag", b'"a"')], None),
        (b"GET", [], 200, [(b"cache-control", b"max-age=60, No-Store")], Unstored.NO_STORE),
        (b"GET", [], 200, [FRESH, (b"surrogate-control", b"no-store")], Unstored.NO_STORE),
        (b"GET", [], 200, [(b"cache-control", b"private, max-age=60")], Unstored.PRIVATE),
        (b"GET", [], 200, [(b"cache-control", b'private="x", max-age=60')], None),
        (b"GET", [], 200, [FRESH, (b"vary", b"foo, *")], Unstored.VARY_STAR),
        (b"GET", [AUTHORIZED], 200, [FRESH], Unstored.AUTHORIZED),
        (b"GET", [AUTHORIZED], 200, [(b"surrogate-control", b"max-age=9")], Unstored.AUTHORIZED),
        (b"GET", [AUTHORIZED], 200, [(b"cache-control", b"public, max-age=60")], None),
        (b"GET", [AUTHORIZED], 200, [(b"cache-control", b"s-maxage=60")], None),
        (b"GET", [AUTHORIZED], 200, [(b"cache-control", b"max-age=60, must-revalidate")], None),
        (b"GET", [AUTHORIZED], 200, [(b"cache-control", b"max-age=6, proxy-revalidate")], Unstored.AUTHORIZED),
        (b"GET", [], 200, [FRESH, (b"content-length", b"1048577")], Unstored.TOO_LARGE),
    ],
)  # fmt: skip
def test_what_is_stored(world, method, asked, status, fields, expected):
    fetch = world.look(*asked, method=method)
    assert isinstance(fetch, Fetch)
    made = [make_field(*each) for each in fields]
    times = {"request_time_s": world.now_s, "response_time_s": world.now_s}
    saving = world.cache.begin(fetch, status, b"", made, **times)
    assert (saving if isinstance(saving, Unstored) else None) == expected
    if expected is not None:
        assert world.cache.counters.unstored[expected] == 1
        assert expected.value.encode() in fetch.cache_status(status, expected)


def test_what_is_sent_again(world):
    given = [
        (b"connection", b"x-here, close"),
        (b"x-here", b"1"),
        (b"keep-alive", b"1"),
        (b"proxy-authenticate", b"1"),
        (b"proxy-authentication-info", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"surrogate-control", b'content="ESI/1.0"'),
        (b"cache-control", b'max-age=60, no-cache="x-secret", private="x-own"'),
        (b"x-secret", b"1"),
        (b"x-own", b"1"),
        (b"age", b"7"),
        (b"set-cookie", b"a=b"),
        (b"set-cookie", b"c=d"),
        (b"content-type", b"text/plain"),
        (b"via", b"1.1 other"),
    ]
    world.response = (200, given, b"hello")
    assert not world.get().from_cache
    made = world.date()
    world.now_s += 3
    got = world.get()
    assert got.body == b"hello"
    assert got.fields == [
        (b"cache-control", b'max-age=60, no-cache="x-secret", private="x-own"'),
        (b"set-cookie", b"a=b"),
        (b"set-cookie", b"c=d"),
        (b"content-type", b"text/plain"),
        (b"via", b"1.1 other"),
        (b"date", made),
        (b"content-length", b"5"),
        (b"age", b"10"),
        (b"cache-status", b"marchproxy; hit; ttl=50"),
    ]


def test_no_content_has_no_length(world):
    world.response = (204, [FRESH], b"")
    world.get()
    assert world.get()[b"content-length"] is None
    assert world.get().from_cache


def test_a_body_that_is_cut_short_is_not_stored(world):
    fetch = world.look()
    times = {"request_time_s": world.now_s, "response_time_s": world.now_s}
    fields = [make_field(*FRESH), make_field(b"content-length", b"5")]
    saving = world.cache.begin(fetch, 200, b"OK", fields, **times)
    saving.add(b"hell")
    assert saving.finish() is None
    assert saving.unstored is Unstored.CUT_SHORT
    saving = world.cache.begin(world.look(), 200, b"OK", fields, **times)
    saving.add(b"hello")
    saving.abort()
    assert saving.unstored is Unstored.CUT_SHORT
    assert isinstance(world.look(), Fetch)


def test_a_body_that_grows_too_large_gives_up_by_itself(make_world):
    world = make_world(max_object_bytes=10)
    times = {"request_time_s": world.now_s, "response_time_s": world.now_s}
    saving = world.cache.begin(world.look(), 200, b"OK", [make_field(*FRESH)], **times)
    saving.add(memoryview(b"123456789"))
    assert saving.unstored is None
    saving.add(b"ab")
    saving.add(b"c")
    assert saving.unstored is Unstored.TOO_LARGE
    assert saving.finish() is None
    assert len(world.cache) == 0


def test_what_is_being_stored_is_bounded_too(make_world):
    world = make_world(max_bytes=100, max_object_bytes=50)
    times = {"request_time_s": world.now_s, "response_time_s": world.now_s}
    savings = [
        world.cache.begin(world.look(path=path), 200, b"OK", [make_field(*FRESH)], **times)
        for path in (b"/1", b"/2", b"/3")
    ]
    savings[0].add(b"x" * 40)
    savings[1].add(b"x" * 20)
    assert savings[1].unstored is Unstored.BUSY
    savings[0].abort()
    savings[2].add(b"x" * 40)
    assert savings[2].unstored is None


def test_variants_are_kept_side_by_side(world):
    world.response = lambda request: (
        200,
        [FRESH, (b"vary", b"Accept-Language")],
        next((field.value for field in request.fields if field.name == b"accept-language"), b"none"),
    )
    for language in (b"en", b"de"):
        world.get((b"accept-language", language))
    world.get()
    assert [world.get((b"accept-language", each)).body for each in (b"DE", b"en")] == [b"de", b"en"]
    assert world.get().body == b"none"
    assert len(world.asked) == 3
    assert world.cache.look_up(world.request((b"accept-language", b"fr")), 0).why.value == b"vary-miss"


def test_configured_fields_have_variants_of_their_own(make_world):
    world = make_world(vary=[b"X-Tenant"])
    for tenant in (b"a", b"b"):
        world.response = (200, [FRESH], tenant)
        world.get((b"x-tenant", tenant))
    assert world.get((b"x-tenant", b"a")).body == b"a"
    assert world.get((b"x-tenant", b"b")).body == b"b"
    assert isinstance(world.look(), Fetch)


@pytest.mark.parametrize("scheme", [b"https"])
def test_schemes_hosts_and_queries_are_different_urls(world, scheme):
    world.response = (200, [FRESH], b"")
    world.get(path=b"/?a=1")
    request = world.request(path=b"/?a=1")
    assert isinstance(world.cache.look_up(request, world.now_s), Hit)
    for other in (
        request._replace(scheme=scheme),
        request._replace(host=b"other.test"),
        request._replace(path=b"/?a=2"),
    ):
        assert isinstance(world.cache.look_up(other, world.now_s), Fetch)


@pytest.mark.parametrize("name", [b"cookie", b"authorization"])
def test_what_does_not_say_that_it_is_for_others_is_shared_by_nobody_else(make_world, name):
    world = make_world(ttl_s=60.0)
    world.response = (200, [(b"etag", b'"a"')], b"of one")
    world.get((b"cookie", b"one"))
    world.response = (200, [(b"etag", b'"a"')], b"of nobody")
    world.get()
    assert isinstance(world.look((name, b"two")), Fetch)
    assert world.get((b"cookie", b"one")).body == b"of one"
    assert world.get().body == b"of nobody"


@pytest.mark.parametrize("directives", [b"max-age=60", b"public"])
def test_what_says_that_it_is_for_others_is_shared_by_all(make_world, directives):
    world = make_world(ttl_s=60.0)
    world.response = (200, [(b"cache-control", directives)], b"of all")
    world.get((b"cookie", b"one"))
    assert world.get((b"cookie", b"two")).from_cache


def test_a_guess_is_not_used_for_others_when_the_backend_is_gone(world):
    world.response = (200, [(b"etag", b'"a"')], b"of one")
    world.get((b"cookie", b"one"))
    world.response = None
    assert world.get((b"cookie", b"two")).status == 502
    assert world.get((b"cookie", b"one")).body == b"of one"
