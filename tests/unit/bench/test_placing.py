"""Which CPUs are whose."""

from __future__ import annotations

import pytest

from bench.placing import BRAKE, Cpus, TooFewCpus, place


@pytest.mark.parametrize("when_tight", ["brake", "share"])
def test_where_there_are_many_the_proxy_has_one_alone_and_no_brake(when_tight):
    assert place([6, 2, 4], when_tight) == Cpus(proxy=frozenset({6}), generators=frozenset({2, 4}), brake=0.0)


def test_of_two_the_proxy_has_one_with_the_brake_on():
    assert place([0, 1], "brake") == Cpus(proxy=frozenset({1}), generators=frozenset({0}), brake=BRAKE)


def test_a_peer_may_be_braked_harder_where_it_is_braked_at_all():
    assert place([0, 1], "brake", 0.7).brake == 0.7
    assert place([0, 1, 2], "brake", 0.7).brake == 0.0


def test_two_may_be_shared():
    assert place([0, 1], "share") == Cpus(proxy=frozenset({0, 1}), generators=frozenset({0, 1}), brake=0.0)


def test_one_is_too_few():
    with pytest.raises(TooFewCpus, match="need two CPUs"):
        place([3], "share")
