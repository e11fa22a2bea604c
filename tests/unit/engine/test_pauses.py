"""Pauses double up to a cap and are forgiven after a long good run."""

from __future__ import annotations

from marchproxy_core.engine.pauses import FORGIVEN_AFTER_S, LONGEST_PAUSE_S, Pauses


def test_pauses_double_to_the_cap_and_probation_follows_them():
    pauses = Pauses()
    assert pauses.probation_s == 0
    waited = [pauses.failed(0) for _ in range(12)]
    assert waited[:4] == [1, 2, 4, 8]
    assert waited[-1] == LONGEST_PAUSE_S == pauses.probation_s


def test_a_long_good_run_forgives_a_short_one_does_not():
    pauses = Pauses()
    pauses.failed(0)
    assert pauses.failed(FORGIVEN_AFTER_S - 1) == 2
    assert pauses.failed(FORGIVEN_AFTER_S) == 1
