"""Whether our tier's targets are said to be reached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import judge
from bench.http.metrics import KINDS, TARGETS, Target, metrics_of
from bench.http.peers import OURS, PEERS
from bench.http.targets import Quotient, outcome, outcomes, quotient, rates
from bench.readings import CpuShare, Measured, Reading

BUSY = CpuShare(worker_run=0.58, worker_wait=0.40, proxy_run=0.60)
IDLING = CpuShare(worker_run=0.50, worker_wait=0.20, proxy_run=0.50)
DISTURBED = CpuShare(worker_run=0.58, worker_wait=0.40, proxy_run=0.60, strangers=0.5)


def reading(workload, peer, rate, cpu=BUSY):
    values = {metrics_of(workload).rate.key: rate}
    return Reading(
        round=1, workload=workload, peer=peer, measured=Measured(values=values, cpu=cpu, command="")
    )


def found(*readings):
    metrics = [metrics_of(workload).rate for workload in dict.fromkeys(one.workload for one in readings)]
    return {
        (target.workload, target.reference): (by, said)
        for target, by, said in outcomes(rates(judge.figures(readings, metrics)))
    }


def test_a_ratio_that_is_high_enough_is_reached_and_another_missed():
    said = found(
        reading("small", OURS, 24_000.0),
        reading("small", "envoy", 20_000.0),
        reading("small", "caddy", 12_500.0),
    )

    assert said["small", "envoy"] == (Quotient(1.2, "", is_disturbed=False), "reached")
    assert said["small", "caddy"][1] == "missed"
    assert said["small", "traefik"] == (None, "not measured")


def test_cached_answers_are_compared_with_our_own_that_are_not():
    said = found(reading("small", OURS, 20_000.0), reading("cached", OURS, 30_000.0))

    assert said["cached", OURS] == (Quotient(1.5, "", is_disturbed=False), "reached")


@pytest.mark.parametrize(
    ("ours", "theirs", "sign", "said"),
    [
        ((24.0, IDLING), (20.0, BUSY), ">= ", "reached"),
        ((23.0, IDLING), (20.0, BUSY), ">= ", "undecided"),
        ((24.0, BUSY), (20.0, IDLING), "<= ", "undecided"),
        ((23.0, BUSY), (20.0, IDLING), "<= ", "missed"),
        ((90.0, IDLING), (20.0, IDLING), "? ", "undecided"),
        ((24.0, DISTURBED), (20.0, BUSY), "", "undecided, disturbed"),
    ],
)
def test_a_rate_that_was_refused_decides_one_way_only(ours, theirs, sign, said):
    by, outcome_ = found(reading("small", OURS, *ours), reading("small", "envoy", *theirs))["small", "envoy"]

    assert (by.sign, outcome_) == (sign, said)


def test_what_failed_is_not_measured():
    failed = Reading(round=1, workload="small", peer="envoy", failure="it ended")

    assert found(reading("small", OURS, 1.0), failed)["small", "envoy"] == (None, "not measured")
    assert quotient(None, None) is None


@given(
    value=st.floats(0, 10),
    ratio=st.floats(0.1, 3),
    bounds=st.tuples(st.sampled_from([">= ", "<= ", "? "]), st.booleans()),
)
def test_a_bound_never_decides_what_the_exact_value_would_decide_otherwise(value, ratio, bounds):
    target = Target("small", "envoy", ratio)
    exact = outcome(target, Quotient(value, "", is_disturbed=False))
    bound = outcome(target, Quotient(value, bounds[0], is_disturbed=bounds[1]))

    assert bound.startswith("undecided") or bound == exact


def test_targets_name_kinds_and_peers_that_there_are():
    kinds, peers = {kind.name for kind in KINDS}, {peer.name for peer in PEERS}

    assert {target.workload for target in TARGETS} <= kinds
    assert {target.by_workload for target in TARGETS} - {None} <= kinds
    assert {target.reference for target in TARGETS} <= peers
