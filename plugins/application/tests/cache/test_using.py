"""How stored responses are used: conditions, ranges, clients' wishes, validation, stale answers."""

from __future__ import annotations

import pytest

from marchproxy_application.cache.answers import Bypass, Fetch, GatewayTimeout, Hit, Validate

FRESH = (b"cache-control", b"max-age=60")
TAG = (b"etag", b'"a"')


def fill(world, *fields, body=b"0123456789"):
    world.response = (200, list(fields), body)
    world.get()
    world.asked.clear()


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        (b'"a"', 304),
        (b'W/"a"', 304),
        (b'"x", "y,z" , "a"', 304),
        (b"*", 304),
        (b'"b"', 200),
        (b'"x, \\"a\\""', 200),
        (b"", 200),
    ],
)
def test_if_none_match(world, wanted, status):
    fill(world, FRESH, TAG, (b"content-type", b"text/plain"), (b"x-other", b"1"))
    got = world.get((b"if-none-match", wanted), (b"if-modified-since", world.date(100)))
    assert (got.status, got.from_cache) == (status, True)
    assert got[b"etag"] == b'"a"'
    assert got[b"x-other"] == b"1"
    if status == 304:
        assert got.body == b""
        assert got[b"content-type"] is None
        assert got[b"content-length"] is None


@pytest.mark.parametrize(
    ("modified_s", "since_s", "status"),
    [(-100, -100, 304), (-100, -50, 304), (-100, -101, 200), (None, 0, 304), (None, -1, 200)],
)
def test_if_modified_since(world, modified_s, since_s, status):
    modified = [] if modified_s is None else [(b"last-modified", world.date(modified_s))]
    fill(world, FRESH, (b"date", world.date()), *modified)
    assert world.get((b"if-modified-since", world.date(since_s))).status == status


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ([(b"range", b"bytes=2-4")], 206, b"234", b"bytes 2-4/10"),
        ([(b"range", b"bytes=8-99")], 206, b"89", b"bytes 8-9/10"),
        ([(b"range", b"bytes=-99")], 206, b"0123456789", b"bytes 0-9/10"),
        ([(b"range", b"bytes=-1")], 206, b"9", b"bytes 9-9/10"),
        ([(b"range", b"bytes=10-")], 416, b"", b"bytes */10"),
        ([(b"range", b"bytes=0-1,4-5")], 200, b"0123456789", None),
        ([(b"range", b"bytes=0-1"), (b"if-range", b'"a"')], 206, b"01", b"bytes 0-1/10"),
        ([(b"range", b"bytes=0-1"), (b"if-range", b'"b"')], 200, b"0123456789", None),
        ([(b"range", b"bytes=0-1"), (b"if-range", b'W/"a"')], 200, b"0123456789", None),
        ([(b"range", b"bytes=0-1"), (b"if-none-match", b'"a"')], 304, b"", None),
    ],
)
def test_ranges(world, asked, status, body, content_range):
    fill(world, FRESH, TAG)
    got = world.get(*asked)
    assert (got.status, got.body, got[b"content-range"]) == (status, body, content_range)
    assert got.from_cache
    if status != 304:
        assert got[b"content-length"] == b"%d" % len(body)


def test_a_date_is_a_validator_of_ranges_only_when_it_is_old_enough(world):
    fill(world, FRESH, (b"date", world.date()), (b"last-modified", world.date(-60)))
    assert world.get((b"range", b"bytes=0-1"), (b"if-range", world.date(-60))).status == 206
    assert world.get((b"range", b"bytes=0-1"), (b"if-range", world.date(-50))).status == 200
    world.cache.purge_all(world.now_s)
    world.now_s += 1
    fill(world, FRESH, (b"date", world.date()), (b"last-modified", world.date(-59)))
    assert world.get((b"range", b"bytes=0-1"), (b"if-range", world.date(-59))).status == 200


def test_ranges_are_of_get_and_conditions_of_200(world):
    fill(world, FRESH, TAG)
    head = world.get((b"range", b"bytes=0-1"), method=b"HEAD")
    assert (head.status, head.body, head[b"content-length"]) == (200, b"", b"10")
    world.response = (404, [FRESH, TAG], b"no")
    world.get(path=b"/no")
    assert world.get((b"if-none-match", b'"a"'), path=b"/no").status == 404


@pytest.mark.parametrize(
    ("wish", "after_s", "expected"),
    [
        (b"max-age=30", 20, Hit),
        (b"max-age=30", 31, Validate),
        (b"max-age=0", 0, Validate),
        (b"min-fresh=30", 29, Hit),
        (b"min-fresh=30", 31, Validate),
        (b"no-cache", 0, Validate),
        (b"no-store", 0, Bypass),
        (b"max-stale", 1000, Hit),
        (b"max-stale=10", 70, Hit),
        (b"max-stale=10", 71, Validate),
        (b"only-if-cached", 0, Hit),
        (b"only-if-cached", 61, GatewayTimeout),
        (b"nothing-known", 0, Hit),
    ],
)
def test_what_clients_wish(world, wish, after_s, expected):
    fill(world, FRESH)
    world.now_s += after_s
    assert type(world.look((b"cache-control", wish))) is expected


def test_a_client_that_wants_only_what_is_stored_gets_504(world):
    assert world.get((b"cache-control", b"only-if-cached")).status == 504


def test_max_stale_is_nothing_to_who_must_be_validated(world):
    fill(world, (b"cache-control", b"max-age=60, must-revalidate"))
    world.now_s += 61
    assert isinstance(world.look((b"cache-control", b"max-stale")), Validate)


@pytest.mark.parametrize(
    "field",
    [
        (b"if-match", b'"a"'),
        (b"if-unmodified-since", b"x"),
        (b"content-length", b"5"),
        (b"transfer-encoding", b"chunked"),
    ],
)
def test_what_only_a_backend_can_answer(world, field):
    fill(world, FRESH)
    answer = world.look(field)
    assert isinstance(answer, Bypass)
    assert answer.cache_status == b"marchproxy; fwd=bypass"


def test_a_304_renews_what_is_stored(world):
    kept = [(b"content-encoding", b"x"), (b"content-range", b"x"), (b"content-md5", b"x")]
    fill(world, FRESH, TAG, (b"x-a", b"1"), (b"x-a", b"2"), (b"x-b", b"1"), (b"age", b"9"), *kept)
    world.now_s += 61
    news = [
        (b"x-a", b"3"),
        (b"etag", b'"b"'),
        (b"connection", b"x-c"),
        (b"x-c", b"1"),
        (b"content-length", b"3"),
    ]
    news += [(name, b"y") for name, _ in kept]
    world.response = (304, news, b"")
    got = world.get((b"if-none-match", b'"other"'), (b"range", b"bytes=1-2"))
    assert [field.value for field in world.asked[0].fields if field.name == b"if-none-match"] == [b'"a"']
    assert (got.status, got.body, got[b"content-range"]) == (206, b"12", b"bytes 1-2/10")
    got = world.get()
    assert (got.from_cache, got.status, got.body) == (True, 200, b"0123456789")
    assert [value for name, value in got.fields if name == b"x-a"] == [b"3"]
    assert (got[b"x-b"], got[b"etag"], got[b"x-c"]) == (b"1", b'"a"', None)
    assert (got[b"content-length"], got[b"age"]) == (b"10", b"0")
    assert all(got[name] == value for name, value in kept)
    assert world.cache.counters.renewed == 1


def test_a_304_keeps_what_a_surrogate_was_told(world):
    fill(world, (b"surrogate-control", b"max-age=60"), (b"cache-control", b"max-age=1"), TAG)
    world.now_s += 61
    world.response = (304, [], b"")
    world.get()
    world.now_s += 59
    assert world.get().from_cache


def test_a_304_may_forbid_storing(world):
    fill(world, FRESH, TAG)
    world.now_s += 61
    world.response = (304, [(b"cache-control", b"no-store")], b"")
    assert world.get().body == b"0123456789"
    assert len(world.cache) == 0


def test_another_answer_takes_the_place_of_the_stale_one(world):
    fill(world, FRESH, TAG)
    world.now_s += 61
    world.response = (200, [FRESH], b"new")
    assert world.get().body == b"new"
    assert world.get().from_cache
    world.now_s += 61
    world.response = (200, [(b"cache-control", b"private")], b"own")
    assert world.get().body == b"own"
    assert len(world.cache) == 0


def test_no_cache_is_validated_each_time(world):
    fill(world, (b"cache-control", b"no-cache"), TAG)
    world.response = (304, [], b"")
    for _ in range(2):
        assert world.get().status == 200
    assert len(world.asked) == 2


def test_stale_while_revalidate(world):
    fill(world, (b"cache-control", b"max-age=60, stale-while-revalidate=10"), body=b"old")
    world.now_s += 65
    world.response = (200, [FRESH], b"new")
    got = world.get()
    assert (got.body, got[b"cache-status"]) == (b"old", b"marchproxy; hit; ttl=-5")
    assert world.get().body == b"new"
    assert len(world.asked) == 1


def test_only_one_refreshes_at_a_time(world):
    fill(world, (b"cache-control", b"max-age=60, stale-while-revalidate=10"))
    world.now_s += 65
    first, second = world.look(), world.look()
    assert isinstance(first, Hit)
    assert isinstance(second, Hit)
    assert second.refresh is None
    assert first.refresh is not None
    world.cache.abandon(first.refresh, world.now_s, failed=False)
    assert world.look().refresh is not None
    world.now_s += 6
    assert not isinstance(world.look(), Hit)


@pytest.mark.parametrize(
    ("directives", "response", "after_s", "status"),
    [
        (b"max-age=60", None, 61, 200),
        (b"max-age=60", None, 60 + 3601, 502),
        (b"max-age=60", (503, [], b""), 61, 503),
        (b"max-age=60, stale-if-error=10", (503, [], b""), 69, 200),
        (b"max-age=60, stale-if-error=10", (503, [], b""), 71, 503),
        (b"max-age=60, stale-if-error=10", (501, [], b""), 69, 501),
        (b"max-age=60, stale-if-error=10", None, 69, 200),
        (b"max-age=60, stale-if-error=10", None, 71, 502),
        (b"max-age=60, must-revalidate", None, 61, 502),
        (b"s-maxage=60", None, 61, 502),
    ],
)
def test_when_a_backend_fails(world, directives, response, after_s, status):
    fill(world, (b"cache-control", directives))
    world.now_s += after_s
    world.response = response
    got = world.get()
    assert got.status == status
    assert len(world.asked) == 1
    if status == 200:
        assert b"fwd=stale" in got[b"cache-status"]


def test_a_backend_that_fails_is_asked_once_a_second(world):
    fill(world, FRESH)
    world.now_s += 61
    world.response = None
    for _ in range(3):
        assert world.get().status == 200
    assert len(world.asked) == 1
    world.now_s += 1
    world.get()
    assert len(world.asked) == 2


def test_head_is_answered_by_what_is_stored_of_get_and_renews_it(world):
    fill(world, FRESH, TAG, (b"x-a", b"1"))
    assert world.get(method=b"HEAD").from_cache
    world.now_s += 61
    world.response = (200, [FRESH, TAG, (b"x-a", b"2")], b"")
    assert not world.get(method=b"HEAD").from_cache
    assert (world.get().from_cache, world.get()[b"x-a"]) == (True, b"2")
    world.now_s += 61
    world.response = (200, [FRESH, (b"etag", b'"b"')], b"")
    world.get(method=b"HEAD")
    assert isinstance(world.look(), Fetch)
    assert len(world.cache) == 0


def test_a_backend_hears_that_it_can_speak_to_us(world):
    world.response = (200, [], b"")
    world.get()
    assert (b"surrogate-capability", b'marchproxy="Surrogate/1.0"') in [
        (field.name, field.value) for field in world.asked[0].fields
    ]


def test_what_is_never_fresh_may_be_used_while_it_is_refreshed(world):
    fill(world, (b"cache-control", b"max-age=0, stale-while-revalidate=10"), body=b"1")
    for body in (b"2", b"3"):
        world.response = (200, [(b"cache-control", b"max-age=0, stale-while-revalidate=10")], body)
        world.now_s += 5
        assert world.get().body == b"%d" % (int(body) - 1)
    assert len(world.asked) == 2


def test_a_failed_refresh_is_tried_again_after_a_second(world):
    fill(world, (b"cache-control", b"max-age=60, stale-while-revalidate=10, stale-if-error=0"))
    world.now_s += 62
    world.response = None
    for _ in range(3):
        assert world.get().from_cache
    assert len(world.asked) == 1
    world.now_s += 1
    assert world.get().from_cache
    assert len(world.asked) == 2
