"""What a reader sees: tables, notes, the plot."""

from __future__ import annotations

from xml.etree import ElementTree

import attrs
import pytest

from bench import judge, plot, report, tabulating
from bench.readings import CpuShare, Measured, Reading

BUSY = CpuShare(worker_run=0.58, worker_wait=0.40, proxy_run=0.60, generator_cpus=0.8)
IDLING = CpuShare(worker_run=0.50, worker_wait=0.20, proxy_run=0.50)
TITLES = {
    "marchproxy": "MarchProxy <sockets>",
    "haproxy": "HAProxy",
    "nginx": "nginx",
    "kernel": "kernel",
    "marchproxy-ebpf": "MarchProxy ebpf",
}


def reading(peer, value, *, cpu=BUSY, key="requests_s", workload="requests", notes=None):
    measured = Measured(values={key: value}, cpu=cpu, command="", notes=notes or {})
    return Reading(round=1, workload=workload, peer=peer, measured=measured)


READINGS = [
    reading("marchproxy", 72_000.4),
    reading("haproxy", 60_000.0),
    reading("nginx", 55_555.0, cpu=IDLING),
    reading("kernel", 180_000.0, cpu=CpuShare()),
    Reading(round=2, workload="requests", peer="kernel", failure="nft ended with 1"),
]


def markdown(readings):
    return tabulating.markdown(report.sheets(judge.figures(readings), TITLES))


def test_a_row_has_median_ratio_and_whether_the_target_was_reached():
    assert (
        "| MarchProxy <sockets> | 72,000 | 1.20 reached | 72,000 - 72,000 | 58% | 40% | 80% | 120,001 |"
        in markdown(READINGS)
    )


def test_a_target_that_was_missed_says_so():
    assert "0.50 missed" in markdown([reading("marchproxy", 30_000.0), reading("haproxy", 60_000.0)])


def test_a_generator_bound_figure_is_nowhere_in_the_output():
    figures = judge.figures(READINGS)
    shown = tabulating.markdown(report.sheets(figures, TITLES)) + plot.svg(figures, TITLES, "a run")

    assert "55,555" not in shown
    assert "| nginx | generator-bound | >= 0.93 | the worker had work only 70% of the time |" in shown


def test_what_runs_in_the_kernel_has_a_ratio_to_nftables_and_a_target_by_it():
    shown = markdown(
        [
            reading(
                "marchproxy-ebpf",
                190_000.0,
                key="shared_requests_s",
                workload="shared_requests",
                cpu=CpuShare(),
            ),
            reading("haproxy", 100_000.0, key="shared_requests_s", workload="shared_requests"),
            reading("kernel", 200_000.0, key="shared_requests_s", workload="shared_requests", cpu=CpuShare()),
        ]
    )

    assert "| MarchProxy ebpf | 190,000 | 1.90 reached | 0.95 missed | 190,000 - 190,000 |" in shown


def test_a_bound_below_the_target_decides_nothing_and_one_above_it_does():
    def ratio(rate):
        return markdown([reading("marchproxy", rate, cpu=IDLING), reading("haproxy", 60_000.0)])

    assert ">= 0.90 undecided" in ratio(54_000.0)
    assert ">= 1.10 reached" in ratio(66_000.0)


@pytest.mark.parametrize("rate", [30_000.0, 90_000.0])
def test_a_disturbed_run_decides_neither_for_nor_against_the_tier(rate):
    disturbed = attrs.evolve(BUSY, strangers=0.5)

    for ours, reference in ((disturbed, BUSY), (BUSY, disturbed)):
        readings = [reading("marchproxy", rate, cpu=ours), reading("haproxy", 60_000.0, cpu=reference)]
        assert f"{rate / 60_000:.2f} undecided, disturbed" in markdown(readings)


def test_columns_without_content_are_left_out():
    assert "worker ran" not in markdown(
        [reading("haproxy", 40.0, cpu=None, key="pss_idle_mib", workload="memory")]
    )


def test_a_failed_turn_is_named_in_the_table_and_in_the_notes():
    assert "180,000 (1 failed)" in markdown(READINGS)
    assert "Failed: kernel requests: nft ended with 1" in report.notes(judge.figures(READINGS), READINGS, 0.0)


def test_the_notes_tell_of_the_brake_and_of_fewer_idle_connections():
    readings = [
        reading(
            "haproxy", 40.0, cpu=None, key="pss_idle_mib", workload="memory", notes={"connections": 9500.0}
        )
    ]

    told = " ".join(report.notes(judge.figures(readings), readings, 0.4))

    assert "braked by 40%" in told
    assert "Idle connections: 9,500, not 10,000" in told


def test_the_notes_tell_that_there_is_nothing_to_compare_with():
    readings = [reading("nginx", 1.0)]

    assert "No ratios: HAProxy was not measured." in report.notes(judge.figures(readings), readings, 0.0)


def test_the_terminal_shows_one_table_for_each_metric():
    readings = [reading("haproxy", 500.0, key="p99_us"), reading("haproxy", 60_000.0)]

    assert [sheet.title for sheet in report.sheets(judge.figures(readings), TITLES)] == [
        "keep-alive requests/s (more is better; target: sockets >= 1 x HAProxy)",
        "p99 latency, µs (less is better; target: sockets <= 1.2 x HAProxy)",
    ]


def svg(readings):
    return ElementTree.fromstring(plot.svg(judge.figures(readings), TITLES, "a run & more"))


def test_the_plot_is_well_formed_whatever_peers_are_called():
    texts = [element.text for element in svg(READINGS).iter("{http://www.w3.org/2000/svg}text")]

    assert "a run & more" in texts
    assert "MarchProxy <sockets>" in texts
    assert "72,000  (1.20 x HAProxy)" in texts
    assert "generator-bound: the worker had work only 70% of the time; at least 0.93 x HAProxy" in texts


def test_bars_are_as_long_as_their_figures():
    bars = [
        float(one.get("width")) for one in list(svg(READINGS).iter("{http://www.w3.org/2000/svg}rect"))[1:]
    ]

    assert len(bars) == 3
    assert bars[0] / bars[1] == 1.2


def test_a_plot_of_zeros_has_no_length():
    bars = list(
        svg([reading("haproxy", 0.0, cpu=None, key="kernel_idle_mib", workload="memory")]).iter(
            "{http://www.w3.org/2000/svg}rect"
        )
    )

    assert float(bars[1].get("width")) == 0.0
