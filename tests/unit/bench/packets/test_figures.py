"""Samples, medians, ratios, targets, and the rule that refuses figures."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.packets import chart, tables
from bench.packets.figures import figures, growth, ratio
from bench.packets.samples import Moment, Reading, Sample, Totals
from bench.packets.traffic import Point
from bench.tabulating import markdown

ONE, MANY, SERVICES = Point("udp", 1, 1), Point("udp", 1000, 1), Point("udp", 1000, 1000)
TITLES = {"nftables": "nftables", "tc": "engine, TC", "xdp": "engine <XDP>", "redirect": "bare redirect"}


def sample(rate, *, offered=10.0, vanished=0.0, core=0.8, program_ns=None):
    """A second in which the core made ``rate`` million packets of each second that it had."""
    return Sample(
        seconds=1.0,
        offered=round(offered * 1e6),
        received=round(rate * core * 1e6),
        core_s=core,
        vanished=vanished,
        program_ns=program_ns,
    )


def readings(carrier, *rates, point=ONE, **more):
    return [
        Reading(round=number, carrier=carrier, point=point, sample=sample(rate, **more))
        for number, rate in enumerate(rates, 1)
    ]


def find(made, carrier, point=ONE):
    (found,) = [one for one in made if one.carrier == carrier and one.point == point]
    return found


def test_a_sample_is_the_difference_of_two_moments():
    first = Moment(at_s=1.0, offered=10, received=5, core_ns=10**9, program_ns=100, program_runs=1)
    last = Moment(
        at_s=3.0,
        offered=1010,
        received=505,
        core_ns=2 * 10**9,
        program_ns=5100,
        program_runs=51,
    )

    found = Sample.between(first, last)

    assert found == Sample(seconds=2.0, offered=1000, received=500, core_s=1.0, program_ns=100.0)
    assert (found.packets_s, found.loss, found.refusal) == (500.0, 0.5, None)


def test_packets_by_second_of_the_core_leave_out_what_strangers_had_of_it():
    assert sample(2.0, core=0.5).packets_s == sample(2.0, core=1.0).packets_s == 2e6


def test_frames_that_are_lost_behind_the_ring_are_refused():
    assert sample(2.0, vanished=0.01).refusal is None
    assert sample(2.0, vanished=0.02).refusal == "2% of the frames were lost behind the ring"


def test_a_frame_that_the_ring_did_not_take_has_not_vanished():
    before = Totals(offered=100, found_full=10, received=90)

    assert Totals(offered=300, found_full=110, received=190).vanished_since(before) == 0.0
    assert Totals(offered=300, found_full=110, received=140).vanished_since(before) == 0.5
    assert before.vanished_since(before) == 0.0


def test_nothing_that_came_through_is_refused():
    assert sample(0.0).refusal == "nothing came through"


def test_a_figure_is_the_median_and_its_ratio_that_of_medians():
    made = figures([*readings("nftables", 1.0, 0.5, 1.1), *readings("xdp", 4.1, 4.0, 1.0)])

    assert find(made, "xdp").rate == pytest.approx(4.0e6)
    assert str(ratio(find(made, "xdp"), "nftables", made)) == "4.00 reached"
    assert ratio(find(made, "nftables"), "nftables", made) is None


@pytest.mark.parametrize(("rate", "shown"), [(0.8, "0.80 reached"), (0.79, "0.79 missed")])
def test_the_target_by_the_bare_redirect(rate, shown):
    made = figures([*readings("redirect", 1.0), *readings("xdp", rate)])

    assert str(ratio(find(made, "xdp"), "redirect", made)) == shown


def test_a_refused_figure_bounds_its_ratio_and_nobody_has_one_to_it():
    made = figures([*readings("nftables", 1.0), *readings("xdp", 3.0, vanished=0.5)])

    assert str(ratio(find(made, "xdp"), "nftables", made)) == ">= 3.00 undecided"
    assert ratio(find(made, "nftables"), "xdp", made) is None


def test_half_of_the_rounds_refuse_a_figure_and_fewer_are_left_out_of_it():
    refused = readings("xdp", 9.0, vanished=0.5)

    assert find(figures([*readings("xdp", 2.0), *refused]), "xdp").refused is not None
    kept = find(figures([*readings("xdp", 2.0, 2.0), *refused]), "xdp")
    assert (kept.refused, kept.rate) == (None, pytest.approx(2e6))


@pytest.mark.parametrize(("rate", "shown"), [(1.0, "1.20 reached"), (0.9, "1.33 missed")])
def test_cost_grows_from_one_service_to_many(rate, shown):
    made = figures([*readings("tc", 1.2, point=MANY), *readings("tc", rate, point=SERVICES)])

    assert str(growth(find(made, "tc", SERVICES), made)) == shown


def test_cost_grows_from_one_flow_to_many_and_for_others_has_no_target():
    made = figures([*readings("nftables", 1.0), *readings("nftables", 0.5, point=MANY)])

    assert str(growth(find(made, "nftables", MANY), made)) == "2.00"
    assert growth(find(made, "nftables"), made) is None


def test_the_profile_counts_for_the_programs_time_only():
    profile = Reading(round=0, carrier="xdp", point=ONE, sample=sample(1.0, program_ns=126.0))

    made = figures([*readings("xdp", 2.0), profile])

    assert (find(made, "xdp").rates, find(made, "xdp").program_ns) == ((pytest.approx(2e6),), 126.0)


def test_the_tables_show_ratios_costs_and_failures():
    failed = Reading(round=1, carrier="tc", point=ONE, failure="the generator ended with 1")
    made = figures([*readings("nftables", 1.0), *readings("xdp", 2.0), failed])

    shown = markdown(tables.sheets(made, TITLES))

    assert "| 1 | 1 | engine <XDP> | 2.00 | 2.00 - 2.00 | 2.00 missed |  | 500 |  |  | 10.00 | 84% |" in shown
    assert "| 1 | 1 | engine, TC | failed | see below |" in shown
    assert tables.notes(made, TITLES) == [
        "Failed: engine, TC, UDP, 1 flow, 1 service: the generator ended with 1"
    ]


def test_a_refused_figure_is_nowhere_in_the_output():
    made = figures(readings("xdp", 2.22, vanished=0.5))

    for shown in (markdown(tables.sheets(made, TITLES)), chart.svg(made, TITLES, "a run")):
        assert "2.22" not in shown
        assert "50% of the frames were lost behind the ring" in shown


DROP_TITLES = {"door_xdp": "MarchProxy xdp", "door_tc": "MarchProxy ebpf", "drop": "bare XDP_DROP"}
BLOCKED, MANY_BLOCKED = Point("udp", 1, 1, prefixes=1), Point("udp", 50_000, 1, prefixes=50_000)


@pytest.mark.parametrize(("rate", "shown"), [(9.5, "0.95 reached"), (9.4, "0.94 missed")])
def test_the_target_by_the_bare_drop(rate, shown):
    made = figures(
        [*readings("drop", 10.0, point=BLOCKED), *readings("door_xdp", rate, point=BLOCKED, offered=12)]
    )

    assert str(ratio(find(made, "door_xdp", BLOCKED), "drop", made)) == shown
    assert ratio(find(made, "door_xdp", BLOCKED), "nftables", made) is None


def test_what_is_dropped_has_a_table_of_its_own_with_what_more_prefixes_cost():
    offered = {"offered": 20.0}
    made = figures(
        [
            *readings("nftables", 1.0),
            *readings("door_xdp", 8.0, point=BLOCKED, **offered),
            *readings("drop", 10.0, point=BLOCKED, **offered),
            *readings("door_xdp", 4.0, point=MANY_BLOCKED, **offered),
        ]
    )

    through, dropped = tables.sheets(made, TITLES | DROP_TITLES)

    assert [row[2] for row in through.rows] == ["nftables"]
    assert [len(row) for row in dropped.rows] == [len(dropped.head)] * 3
    assert dropped.rows[0][:5] == ("1", "MarchProxy xdp", "8.00", "8.00 - 8.00", "0.80 missed")
    assert dropped.rows[2][:2] + dropped.rows[2][7:8] == ("50,000", "MarchProxy xdp", "2.00")


def test_the_plot_has_a_scale_for_each_kind():
    made = figures([*readings("nftables", 1.0), *readings("drop", 40.0, point=BLOCKED, offered=100.0)])

    widths = [
        element.get("width")
        for element in ElementTree.fromstring(chart.svg(made, TITLES | DROP_TITLES, "a run")).iter(
            "{http://www.w3.org/2000/svg}rect"
        )
    ][1:]

    assert widths[0] == widths[1]


def test_a_carrier_that_failed_at_every_turn_fills_its_row():
    failed = Reading(round=1, carrier="drop", point=BLOCKED, failure="no")
    (sheet,) = tables.sheets(figures([failed]), DROP_TITLES)

    assert len(sheet.rows[0]) == len(sheet.head)
    assert sheet.rows[0][:4] == ("1", "bare XDP_DROP", "failed", "see below")
