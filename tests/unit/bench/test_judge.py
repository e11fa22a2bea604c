"""Medians, ratios, and the rule that refuses figures."""

from __future__ import annotations

import pytest

from bench import judge
from bench.judge import Ratio
from bench.metrics import METRICS
from bench.readings import CpuShare, Measured, Reading

BUSY = CpuShare(worker_run=0.58, worker_wait=0.40, proxy_run=0.60)
IDLING = CpuShare(worker_run=0.50, worker_wait=0.20, proxy_run=0.50)


def rounds(peer, values, *, key="requests_s", workload="requests", cpu=BUSY):
    return [
        Reading(
            round=number,
            workload=workload,
            peer=peer,
            measured=Measured(values={key: value}, cpu=cpu, command=""),
        )
        for number, value in enumerate(values, 1)
    ]


def figure(readings, peer, key="requests_s"):
    (found,) = [one for one in judge.figures(readings) if one.peer == peer and one.metric.key == key]
    return found


def ratio(readings, peer, key="requests_s", reference="haproxy"):
    return figure(readings, peer, key).ratio_to(reference)


def test_a_figure_is_the_median_of_the_rounds_and_its_ratio_that_of_medians():
    readings = rounds("haproxy", [100.0, 50.0, 110.0]) + rounds("marchproxy", [120.0, 121.0, 10.0])

    ours = figure(readings, "marchproxy")

    assert (ours.median, ours.refused) == (120.0, None)
    assert ours.ratios == (Ratio("haproxy", 1.2, is_bound=False, decides=True),)
    assert ratio(readings, "haproxy").value == 1.0


def test_a_worker_that_idles_makes_the_figure_the_generators():
    readings = rounds("haproxy", [100.0]) + rounds("marchproxy", [90.0], cpu=IDLING)

    ours = figure(readings, "marchproxy")

    assert ours.refused == "generator-bound: the worker had work only 70% of the time"
    assert ours.ratios == (Ratio("haproxy", 0.9, is_bound=True, decides=True),)


def test_latency_that_was_refused_bounds_nothing():
    readings = rounds("haproxy", [100.0], key="p99_us") + rounds(
        "marchproxy", [90.0], key="p99_us", cpu=IDLING
    )

    assert ratio(readings, "marchproxy", "p99_us") is None


def test_waiting_for_the_cpu_counts_as_work():
    assert (
        figure(rounds("haproxy", [1.0], cpu=CpuShare(worker_run=0.3, worker_wait=0.65)), "haproxy").refused
        is None
    )


def test_the_median_of_the_shares_decides_not_one_idle_round():
    readings = rounds("haproxy", [100.0, 100.0]) + rounds("haproxy", [60.0], cpu=IDLING)

    assert figure(readings, "haproxy").refused is None


def test_nobody_has_a_ratio_to_a_refused_reference():
    readings = rounds("haproxy", [100.0], cpu=IDLING) + rounds("marchproxy", [120.0])

    assert ratio(readings, "marchproxy") is None


def test_a_rate_close_to_that_without_a_proxy_is_the_generators_even_if_the_worker_is_busy():
    readings = rounds("marchproxy", [95.0]) + rounds("direct", [100.0], cpu=CpuShare())

    assert (
        figure(readings, "marchproxy").refused
        == "generator-bound: without a proxy it reaches 100, hardly more"
    )


def test_a_rate_with_headroom_above_it_stands():
    assert figure(rounds("marchproxy", [90.0]) + rounds("direct", [100.0]), "marchproxy").refused is None


def test_latency_is_not_compared_with_that_without_a_proxy():
    readings = rounds("haproxy", [500.0], key="p99_us") + rounds("direct", [100.0], key="p99_us")

    assert figure(readings, "haproxy", "p99_us").refused is None


def test_latency_of_an_idling_worker_is_refused():
    assert (
        figure(rounds("haproxy", [500.0], key="p99_us", cpu=IDLING), "haproxy", "p99_us").refused is not None
    )


@pytest.mark.parametrize("peer", ["kernel", "direct", "marchproxy-ebpf", "marchproxy-xdp"])
def test_limits_and_what_runs_in_the_kernel_are_not_judged(peer):
    assert figure(rounds(peer, [100.0], cpu=CpuShare()), peer).refused is None


def test_memory_is_not_judged():
    readings = rounds("haproxy", [40.0], key="pss_idle_mib", workload="memory", cpu=None)

    assert figure(readings, "haproxy", "pss_idle_mib").refused is None


def test_a_rate_without_cpu_shares_is_refused():
    assert (
        figure(rounds("haproxy", [40.0], cpu=None), "haproxy").refused
        == "generator-bound: nobody looked at the CPUs"
    )


def test_failed_rounds_are_kept_with_their_reason_and_do_not_count():
    failed = [Reading(round=2, workload="requests", peer="haproxy", failure="wrk met errors")]

    haproxy = figure(rounds("haproxy", [100.0]) + failed, "haproxy")

    assert (haproxy.values, haproxy.failures) == ((100.0,), ("wrk met errors",))


def test_a_peer_that_only_failed_has_no_value_and_no_ratio():
    failed = [Reading(round=1, workload="requests", peer="marchproxy", failure="it died")]

    ours = figure(rounds("haproxy", [100.0]) + failed, "marchproxy")

    assert (ours.values, ours.ratios, ours.refused) == ((), (), None)


def test_disturbed_rounds_are_counted():
    disturbed = CpuShare(worker_run=0.6, worker_wait=0.4, strangers=0.5)

    assert (
        figure(rounds("haproxy", [1.0, 2.0]) + rounds("haproxy", [3.0], cpu=disturbed), "haproxy").disturbed
        == 1
    )


def test_a_rate_by_second_of_the_proxys_cpu():
    assert figure(rounds("haproxy", [60.0]), "haproxy").per_cpu == pytest.approx(100.0)


def test_only_what_runs_in_the_kernel_is_compared_with_the_kernels_rules():
    readings = rounds("kernel", [100.0], cpu=CpuShare()) + rounds("haproxy", [50.0])
    readings += rounds("marchproxy-ebpf", [110.0], cpu=CpuShare()) + rounds("marchproxy", [60.0])

    assert [(one.reference, one.value) for one in figure(readings, "marchproxy-ebpf").ratios] == [
        ("haproxy", 2.2),
        ("kernel", pytest.approx(1.1)),
    ]
    assert ratio(readings, "marchproxy", reference="kernel") is None


@pytest.mark.parametrize(
    ("key", "peer", "reference", "good", "bad"),
    [
        ("bulk_gbit_s", "marchproxy", "haproxy", 1.8, 1.79),
        ("requests_s", "marchproxy", "haproxy", 1.0, 0.99),
        ("p99_us", "marchproxy", "haproxy", 1.2, 1.21),
        ("connections_s", "marchproxy", "haproxy", 0.8, 0.79),
        ("bulk_gbit_s", "marchproxy-ebpf", "kernel", 0.95, 0.94),
        ("bulk_gbit_s", "marchproxy-ebpf", "haproxy", 2.1, 2.09),
        ("shared_requests_s", "marchproxy-ebpf", "kernel", 1.05, 1.04),
        ("shared_requests_s", "marchproxy-ebpf", "haproxy", 1.9, 1.89),
        ("shared_connections_s", "marchproxy-ebpf", "kernel", 1.2, 1.19),
    ],
)
def test_targets_of_our_tiers(key, peer, reference, good, bad):
    metric = next(metric for metric in METRICS if metric.key == key)
    target = metric.target(peer, reference)

    assert metric.reaches(good, target)
    assert not metric.reaches(bad, target)


def test_a_peer_without_a_target_has_none():
    assert METRICS[0].target("nginx", "haproxy") is None
