"""What a reader sees of the HTTP bench, and what a run leaves behind."""

from __future__ import annotations

import json

import attrs

from bench import tabulating
from bench.files import Occasion
from bench.http import results, tables
from bench.http.metrics import metrics_of
from bench.http.peers import OURS, PEERS
from bench.http.workloads import WITH_ONE, WITH_TWO
from bench.readings import CpuShare, Measured, Reading
from bench.results import Run

BUSY = CpuShare(worker_run=0.58, worker_wait=0.40, proxy_run=0.60, generator_cpus=0.8)
IDLING = CpuShare(worker_run=0.50, worker_wait=0.20, proxy_run=0.50)
SMALL, SMALL_2 = WITH_ONE[0], WITH_TWO[0]


def reading(workload, peer, rate, cpu=BUSY):
    keys = metrics_of(workload)
    values = {
        keys.rate.key: rate,
        keys.p50.key: 900.0,
        keys.p99.key: 2_000.0,
        keys.cpu.key: 3.456,
        keys.memory.key: 70.25,
    }
    return Reading(
        round=1, workload=workload, peer=peer, measured=Measured(values=values, cpu=cpu, command="")
    )


def run_of(*readings):
    named = {one.peer for one in readings}
    return Run(
        occasion=Occasion(rounds=1, seconds=1),
        peers=[attrs.evolve(peer, version=lambda: "1.0") for peer in PEERS if peer.name in named],
        workloads=[SMALL, SMALL_2],
        gaps=[],
        readings=readings,
        versions=dict.fromkeys(named, "1.0"),
    )


RUN = run_of(
    reading("small", OURS, 24_000.0),
    reading("small", "envoy", 20_000.0),
    reading("small", "nginx", 50_000.0, IDLING),
    reading("small_2", OURS, 40_000.0),
    reading("small_2", "envoy", 50_000.0),
)


def markdown(run):
    figures = results.figures_of(run)
    return tabulating.markdown(tables.sheets(figures, run.titles))


def test_a_row_has_figures_and_how_ours_compares_and_those_with_two_workers():
    assert (
        "| Envoy | 20,000 | 1.20 | 20,000 - 20,000 | 900 | 2,000 | 3.46 | 70.2 | 58% | 40% | 80% "
        "| 50,000 | 3.46 | 0.80 |" in markdown(RUN)
    )


def test_a_rate_that_was_refused_is_not_printed_nor_its_latency_but_what_it_took_is():
    (row,) = [line for line in markdown(RUN).splitlines() if line.startswith("| nginx")]

    assert "generator-bound" in row
    assert "50,000" not in row
    assert " 900 " not in row
    assert "| 3.46 | 70.2 |" in row
    assert "<= 0.48" in row


def test_targets_come_first_with_their_outcome():
    first = markdown(RUN).partition("\n\n## ")[0]

    assert first.startswith("## Targets of our tier")
    assert "| keep-alive GET, 50 bytes | >= 1.2 x Envoy | 1.20 | reached |" in first
    assert "| keep-alive GET, 50 bytes | >= 2 x caddy |  | not measured |" in first


def test_a_turn_that_failed_is_told_in_its_row():
    failed = Reading(round=1, workload="small", peer="envoy", failure="it ended")
    run = run_of(reading("small", OURS, 24_000.0), failed)

    assert "| Envoy | failed |" in markdown(run)


def test_a_run_leaves_its_figures_its_targets_and_how_each_peer_was_started(tmp_path):
    json_, md, svg = results.write(RUN, results.figures_of(RUN), tmp_path)

    left = json.loads(json_.read_text())
    assert [one["outcome"] for one in left["targets"][:2]] == ["reached", "not measured"]
    assert "proxy_pass" in str(left["peers"]["nginx"]["started_as"]["small"]["files"]["nginx.conf"])
    assert "PRIVATE KEY" not in json_.read_text()
    assert "reached" in md.read_text()
    assert svg.read_text().startswith("<svg")
