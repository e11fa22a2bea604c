"""One request to the backend for many clients, and nobody waits in vain."""

from __future__ import annotations

import pytest

from marchproxy_application.cache.answers import Fetch, Hit, Validate, Wait
from marchproxy_application.cache.messages import make_field
from marchproxy_application.cache.saving import Saving

FRESH = (b"cache-control", b"max-age=60")


def arrive(world, fetch, *fields, status=200):
    times = {"request_time_s": world.now_s, "response_time_s": world.now_s}
    return world.cache.begin(fetch, status, b"", [make_field(*each) for each in fields], **times)


def waiting(world, count, **asked):
    """Have some wait; returns who was woken, in order."""
    woken = []
    for number in range(count):
        answer = world.look(**asked)
        assert isinstance(answer, Wait)
        answer.flight.wait(lambda number=number: woken.append(number))
    return woken


def test_one_asks_for_all(world):
    fetch = world.look()
    assert fetch.collapses
    woken = waiting(world, 3)
    saving = arrive(world, fetch, FRESH)
    assert woken == []
    saving.finish()
    assert woken == [0, 1, 2]
    assert isinstance(world.look(), Hit)
    assert world.cache.counters.waits == 3


def test_who_leaves_is_not_woken(world):
    fetch = world.look()
    wait = world.look()
    woken = []

    def wake():
        woken.append(1)

    wait.flight.wait(wake)
    wait.flight.leave(wake)
    arrive(world, fetch, FRESH).finish()
    wait.flight.leave(wake)
    assert woken == []


@pytest.mark.parametrize(
    ("fields", "for_s"),
    [
        ([(b"cache-control", b"no-store")], 60),
        ([FRESH, (b"content-length", b"99999999")], 60),
        ([FRESH, (b"vary", b"*")], 60),
    ],
)
def test_nobody_waits_for_what_cannot_be_shared(world, fields, for_s):
    fetch = world.look()
    woken = waiting(world, 2)
    assert not isinstance(arrive(world, fetch, *fields), Saving)
    assert woken == [0, 1]
    for _ in range(2):
        assert not world.look().collapses
    world.now_s += for_s
    assert world.look().collapses


def test_nobody_waits_for_what_each_has_to_validate(world):
    fields = [(b"cache-control", b"no-cache"), (b"etag", b'"a"')]
    arrive(world, world.look(), *fields).finish()
    for _ in range(2):
        answer = world.look()
        assert isinstance(answer, Validate)
        assert not answer.collapses


def test_waiting_is_worth_it_again_once_something_was_stored(world):
    arrive(world, world.look(), (b"cache-control", b"no-store"))
    arrive(world, world.look(), FRESH).finish()
    world.now_s += 59.5
    assert isinstance(world.look(), Hit)
    world.cache.purge_all(world.now_s)
    world.now_s += 1
    assert world.look().collapses


def test_a_large_body_lets_others_go_as_soon_as_it_is_too_large(make_world):
    world = make_world(max_object_bytes=10)
    fetch = world.look()
    woken = waiting(world, 1)
    arrive(world, fetch, FRESH).add(b"x" * 11)
    assert woken == [0]
    assert not world.look().collapses


def test_if_the_one_who_asks_goes_away_another_one_asks(world):
    fetch = world.look()
    woken = waiting(world, 2)
    world.cache.abandon(fetch, world.now_s, failed=False)
    assert woken == [0, 1]
    assert world.look().collapses
    assert isinstance(world.look(), Wait)


def test_after_a_failure_those_who_waited_do_not_wait_for_one_another(world):
    world.cache.abandon(world.look(), world.now_s, failed=True)
    assert not world.look().collapses
    world.now_s += 1
    assert world.look().collapses


def test_who_has_waited_long_enough_asks_by_himself(world):
    world.look()
    answer = world.cache.look_up(world.request(), world.now_s, waits=False)
    assert isinstance(answer, Fetch)
    assert not answer.collapses


@pytest.mark.parametrize(
    "field",
    [
        (b"range", b"bytes=0-1"),
        (b"if-none-match", b'"a"'),
        (b"cache-control", b"no-cache"),
        (b"cache-control", b"max-age=0"),
    ],
)
def test_who_wants_an_answer_of_his_own_does_not_wait(world, field):
    world.look()
    answer = world.look(field)
    assert isinstance(answer, Fetch)
    assert not answer.collapses
    assert not world.look(method=b"HEAD").collapses


def test_variants_do_not_wait_for_one_another_once_they_are_known(world):
    arrive(world, world.look((b"foo", b"1")), FRESH, (b"vary", b"foo")).finish()
    two = world.look((b"foo", b"2"))
    three = world.look((b"foo", b"3"))
    assert two.collapses
    assert three.collapses
    assert isinstance(world.look((b"foo", b"2")), Wait)


def test_who_is_woken_may_look_up_at_once(world):
    fetch = world.look()
    answers = []
    for _ in range(2):
        world.look().flight.wait(lambda: answers.append(world.look()))
    world.cache.abandon(fetch, world.now_s, failed=False)
    assert [type(each) for each in answers] == [Fetch, Wait]


def test_the_stale_is_validated_by_one(world):
    arrive(world, world.look(), FRESH, (b"etag", b'"a"')).finish()
    world.now_s += 61
    validate = world.look()
    assert isinstance(validate, Validate)
    woken = waiting(world, 2)
    times = {"request_time_s": world.now_s, "response_time_s": world.now_s}
    world.cache.freshen(validate, [make_field(*FRESH)], **times)
    assert woken == [0, 1]
    assert isinstance(world.look(), Hit)
