"""For how long a response is used, and what Age says (RFC 9111, section 4.2)."""

from __future__ import annotations

import pytest

from marchproxy_application.cache.dates import format_date
from marchproxy_application.cache.directives import policy_of
from marchproxy_application.cache.freshness import Defaults, life_of
from marchproxy_application.cache.messages import make_field

NOW_S = 1_800_000_000.0
DAY_S = 86_400.0


def when(offset_s):
    return format_date(NOW_S + offset_s)


def life(*fields, status=200, took_s=0.0, **defaults):
    made = [make_field(*each) for each in fields]
    return life_of(
        status,
        made,
        policy_of(made),
        Defaults(**defaults),
        request_time_s=NOW_S - took_s,
        response_time_s=NOW_S,
    )


@pytest.mark.parametrize(
    ("fields", "fresh_s"),
    [
        ([], 0),
        ([(b"Cache-Control", b"max-age=60")], 60),
        ([(b"Cache-Control", b"max-age=60"), (b"Age", b"50")], 10),
        ([(b"Cache-Control", b"max-age=60"), (b"Date", when(-20))], 40),
        ([(b"Cache-Control", b"max-age=60"), (b"Date", when(-20)), (b"Age", b"50")], 10),
        ([(b"Cache-Control", b"max-age=60"), (b"Date", when(20))], 60),
        ([(b"Cache-Control", b"max-age=60"), (b"Expires", when(-10))], 60),
        ([(b"Cache-Control", b"max-age=x"), (b"Expires", when(99))], 0),
        ([(b"Expires", when(30)), (b"Date", when(0))], 30),
        ([(b"Expires", when(30)), (b"Date", when(40))], 0),
        ([(b"Expires", when(30)), (b"Date", b"never")], 30),
        ([(b"Expires", when(30))], 30),
        ([(b"Expires", b"0"), (b"Last-Modified", when(-DAY_S))], 0),
        ([(b"Expires", when(30)), (b"CDN-Cache-Control", b"max-age=5")], 5),
        ([(b"Last-Modified", when(-1000))], 100),
        ([(b"Last-Modified", when(-1000)), (b"Set-Cookie", b"a=b")], 0),
        ([(b"Last-Modified", when(1000))], 0),
        ([(b"Last-Modified", when(-1000 * DAY_S))], DAY_S),
    ],
)
def test_how_long_a_response_is_fresh(fields, fresh_s):
    assert life(*fields).fresh_until_s - NOW_S == pytest.approx(fresh_s)


@pytest.mark.parametrize("ages", [[b"x"], [b"-1"], [b"1.0"], [b"0, 0"], [b"0", b"0"], [b"7;a=b"]])
def test_a_response_of_unknown_age_is_stale(ages):
    found = life((b"Cache-Control", b"max-age=60"), *((b"Age", age) for age in ages))
    assert found.fresh_until_s <= NOW_S


def test_the_time_that_the_response_took_counts():
    assert life((b"Cache-Control", b"max-age=60"), (b"Age", b"10"), took_s=5).fresh_until_s == NOW_S + 45


@pytest.mark.parametrize(
    ("status", "fields", "fresh_s"),
    [(200, [], 7), (404, [], 7), (201, [], 0), (403, [], 0), (200, [(b"Set-Cookie", b"a=b")], 0)],
)
def test_what_says_nothing_is_kept_as_configured(status, fields, fresh_s):
    assert life(*fields, status=status, ttl_s=7.0).fresh_until_s == NOW_S + fresh_s


def test_what_is_configured_counts_before_what_is_guessed_and_after_what_is_said():
    modified = (b"Last-Modified", when(-1000))
    assert life(modified, ttl_s=7.0).fresh_until_s == NOW_S + 7
    assert life(modified, (b"Cache-Control", b"max-age=3"), ttl_s=7.0).fresh_until_s == NOW_S + 3


@pytest.mark.parametrize(
    ("directives", "stale_s", "error_s", "unreachable_s"),
    [
        (b"max-age=10", 0, 0, 100),
        (b"max-age=10, stale-if-error=5", 0, 5, 5),
        (b"max-age=10, stale-if-error=0", 0, 0, 0),
        (b"max-age=10, stale-while-revalidate=5", 5, 0, 100),
        (b"s-maxage=10, stale-while-revalidate=5", 5, 0, 100),
    ],
)
def test_how_long_it_may_be_used_stale(directives, stale_s, error_s, unreachable_s):
    found = life((b"Cache-Control", directives), unreachable_s=100.0)
    times = (found.stale_until_s, found.error_until_s, found.unreachable_until_s)
    assert [each - NOW_S - 10 for each in times] == [stale_s, error_s, unreachable_s]


@pytest.mark.parametrize(
    "directives",
    [
        b"max-age=10, must-revalidate, stale-if-error=9",
        b"max-age=10, proxy-revalidate, stale-while-revalidate=9",
        b"s-maxage=10",
        b"max-age=10, no-cache",
    ],
)
def test_when_it_must_not_be_used_stale(directives):
    found = life((b"Cache-Control", directives))
    assert found.must_validate
    assert max(found.stale_until_s, found.error_until_s, found.unreachable_until_s) < NOW_S
