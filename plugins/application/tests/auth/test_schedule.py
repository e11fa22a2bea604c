"""When a key set is fetched, without a clock or a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.auth.fetching import fresh_for
from marchproxy_application.auth.schedule import Limits, Schedule


def fetched(max_age_s=None, now_s=100.0):
    schedule = Schedule(300.0, Limits())
    assert schedule.due_s < now_s
    schedule.start(now_s)
    schedule.succeed(now_s, max_age_s)
    return schedule


@pytest.mark.parametrize(
    ("max_age_s", "pause_s"), [(None, 300.0), (0.0, 27.0), (600.0, 540.0), (86400.0, 3240.0), (30.0, 27.0)]
)
def test_it_is_fetched_again_before_it_is_stale(max_age_s, pause_s):
    assert fetched(max_age_s).due_s == 100.0 + pause_s


def test_pauses_after_failures_double_up_to_a_minute():
    schedule = fetched()
    pauses = []
    for _ in range(9):
        schedule.start(500.0)
        pauses.append(schedule.fail(500.0))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    schedule.start(600.0)
    assert schedule.succeed(600.0, None) == 300.0
    assert schedule.failures == 0


def test_an_unknown_key_brings_the_next_fetch_forward_but_not_too_often():
    schedule = fetched()
    assert not schedule.want(109.9)
    assert schedule.due_s == 400.0
    assert schedule.want(110.0)
    assert schedule.due_s == 110.0
    assert schedule.want(110.1)
    schedule.start(110.2)
    assert schedule.want(110.3)
    schedule.succeed(110.4, None)
    assert not schedule.want(115.0)


def test_while_fetches_fail_nobody_brings_them_forward():
    schedule = fetched()
    for _ in range(6):
        schedule.start(500.0)
        schedule.fail(500.0)
    assert not schedule.want(520.0)
    assert schedule.due_s == 532.0


@given(st.lists(st.tuples(st.integers(1, 100), st.sampled_from(["want", "good", "bad"])), max_size=60))
def test_fetches_that_are_wanted_start_ten_seconds_apart_at_least(steps):
    schedule, now_s, starts, wanted = Schedule(300.0, Limits()), 0.0, [], False
    for step_s, what in steps:
        now_s += step_s
        if what == "want":
            was_due_s = schedule.due_s
            wanted = schedule.want(now_s) and was_due_s > now_s
        if schedule.due_s <= now_s:
            if wanted:
                assert now_s - starts[-1] >= 10.0
            schedule.start(now_s)
            starts.append(now_s)
            assert schedule.is_fetching
            if what == "bad":
                schedule.fail(now_s)
            else:
                schedule.succeed(now_s, None)
        wanted = False
        assert now_s < schedule.due_s <= now_s + 300.0


@pytest.mark.parametrize(
    ("control", "age", "fresh_s"),
    [
        ("", "", None),
        ("public", "", None),
        ("max-age=600", "", 600.0),
        ("public, Max-Age=600, must-revalidate", "100", 500.0),
        ('max-age="60"', "", 60.0),
        ("max-age=60", "600", 0.0),
        ("max-age=60", "-5", 60.0),
        ("s-maxage=60", "", None),
        ("max-age=-1", "", None),
        ("max-age=99999999999999", "", None),
        ("no-cache, max-age=60", "", 0.0),
        ("no-store", "", 0.0),
        ("x-no-store-x=1", "", None),
    ],
)
def test_what_cache_control_says(control, age, fresh_s):
    assert fresh_for(control, age) == fresh_s


@given(st.text(), st.text())
def test_any_cache_control_is_read(control, age):
    fresh_s = fresh_for(control, age)
    assert fresh_s is None or 0 <= fresh_s < 1e9
