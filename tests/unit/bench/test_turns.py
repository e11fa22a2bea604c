"""Turns through the laboratory, with real peers; and what is left out."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner

from bench import cli, turns
from bench.peers import PEERS
from bench.placing import place
from bench.readings import Gap
from bench.stage import set_up
from bench.workloads import WORKLOADS
from marchproxy_core.bpf.bpffs import BPFFS
from marchproxy_core.packet.shared import schema_directory
from marchproxy_core.testing import until
from marchproxy_core.testing.lab.naming import own_names
from marchproxy_core.testing.pytest_plugin import leave_out

ROOT = Path(__file__).parents[3]
PEER = {peer.name: peer for peer in PEERS}
WORKLOAD = {workload.name: workload for workload in WORKLOADS}


@pytest.fixture
def tools():
    missing = [tool for tool in ("haproxy", "nginx", "wrk") if shutil.which(tool) is None]
    if missing:
        leave_out(f"needs {', '.join(missing)}: scripts/system-packages installs them")
    if len(os.sched_getaffinity(0)) < 2:
        leave_out("needs two CPUs")


def test_a_peer_that_is_not_installed_is_left_out_with_the_command_that_brings_it():
    gap = Gap(peer="nginx", reason="nginx is not installed", fix="apt-get install nginx")
    absent = attrs.evolve(PEER["nginx"], missing=lambda: gap)

    here, gaps = turns.present([absent, PEER["direct"]], [WORKLOAD["requests"]])

    assert (here, gaps) == ([PEER["direct"]], [gap])
    assert str(gap) == "nginx: nginx is not installed - fix: apt-get install nginx"


def test_a_workload_that_a_peer_cannot_carry_is_left_out():
    there = attrs.evolve(PEER["haproxy"], missing=lambda: None)

    _, gaps = turns.present([there], [WORKLOAD["udp"], WORKLOAD["bulk"]])

    assert [str(gap) for gap in gaps] == ["haproxy (udp): it has no UDP proxy"]


@pytest.mark.root
@pytest.mark.usefixtures("tools")
async def test_a_turn_through_haproxy_gives_figures_and_leaves_nothing_behind():
    told = []

    readings = await turns.take(
        [PEER["haproxy"], PEER["direct"]],
        [WORKLOAD["requests"]],
        rounds=1,
        seconds=1,
        calm=False,
        tell=told.append,
    )

    assert told == readings
    assert [(reading.round, reading.peer, reading.failure) for reading in readings] == [
        (1, "haproxy", None),
        (1, "direct", None),
    ]
    through, without = (reading.measured for reading in readings)
    assert set(through.values) == {"requests_s", "p50_us", "p99_us"}
    assert min(through.values.values()) > 0
    assert through.cpu.worker_run > 0
    assert without.cpu.worker_run == 0
    assert own_names() == ()


@pytest.mark.root
@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("name", ["marchproxy-ebpf", "marchproxy-xdp"])
async def test_a_turn_through_a_tier_in_the_kernel_passes_that_tier(name):
    gap = PEER[name].missing()
    if gap is not None:
        leave_out(str(gap))

    (reading,) = await turns.take(
        [PEER[name]], [WORKLOAD["shared_requests"]], rounds=1, seconds=1, calm=False, tell=lambda _: None
    )

    assert reading.failure is None
    assert reading.measured.values["shared_requests_s"] > 0
    assert reading.measured.cpu.worker_run == 0
    assert own_names() == ()


@pytest.mark.root
@pytest.mark.usefixtures("tools")
async def test_a_turn_with_flows_under_way_leaves_no_tables_in_the_kernel():
    ebpf, udp = PEER["marchproxy-ebpf"], WORKLOAD["udp"]
    gap = ebpf.missing()
    if gap is not None:
        leave_out(str(gap))

    cpus = place(os.sched_getaffinity(0), "share")
    async with set_up(ebpf, protocol="udp", port=udp.port, server=udp.server, cpus=cpus) as stage:
        directory = await stage.lab.proxy.call(schema_directory)
        pins = BPFFS / "marchproxy" / directory
        assert pins.exists()
        await udp.measure(stage, 1.0)

    assert not pins.exists()


@pytest.mark.root
@pytest.mark.usefixtures("tools")
async def test_a_service_that_runs_on_another_tier_is_not_measured():
    def write(directory, service):
        argv = PEER["marchproxy-ebpf"].write(directory, service)
        file = directory / "marchproxy.yaml"
        file.write_text(file.read_text().replace("tier: ebpf", "tier: sockets"))
        return argv

    (reading,) = await turns.take(
        [attrs.evolve(PEER["marchproxy-ebpf"], write=write)],
        [WORKLOAD["shared_requests"]],
        rounds=1,
        seconds=1,
        calm=False,
        tell=lambda _: None,
    )

    assert reading.measured is None
    assert "the service runs on sockets, not on ebpf" in reading.failure


def test_tiers_in_the_kernel_take_no_part_where_proxies_are_braked():
    ebpf = PEER["marchproxy-ebpf"]

    assert [name for name, workload in WORKLOAD.items() if workload.takes(ebpf)] == [
        "bulk",
        "shared_requests",
        "shared_connections",
        "latency",
        "udp",
    ]
    assert all(workload.takes(PEER["kernel"]) for workload in WORKLOAD.values())


@pytest.mark.root
@pytest.mark.usefixtures("tools")
async def test_a_peer_that_does_not_start_is_a_failure_with_its_own_words():
    def write(directory, service):
        argv = PEER["haproxy"].write(directory, service)
        (directory / "haproxy.cfg").write_text("nonsense\n")
        return argv

    (reading,) = await turns.take(
        [attrs.evolve(PEER["haproxy"], write=write)],
        [WORKLOAD["requests"]],
        rounds=1,
        seconds=1,
        calm=False,
        tell=lambda _: None,
    )

    assert reading.measured is None
    assert "haproxy ended with 1 before it listened" in reading.failure
    assert "unknown keyword 'nonsense'" in reading.failure


@pytest.mark.root
@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_ended_takes_its_laboratory_down(number, tmp_path):
    argv = [sys.executable, "-m", "bench", "--only", "requests", "--peers", "direct", "--seconds", "60"]

    def namespaces() -> list[str]:
        return [name for name in os.listdir("/run/netns") if name.startswith(f"mplab-{process.pid}-")]

    async with trio.open_nursery() as nursery:
        start = functools.partial(
            trio.run_process,
            [*argv, "--results", str(tmp_path)],
            cwd=ROOT,
            check=False,
            capture_stderr=True,
            capture_stdout=True,
        )
        process = await nursery.start(start)
        await until(lambda: len(namespaces()) == 3, deadline_s=30, what="the laboratory")
        process.send_signal(number)
        with trio.fail_after(30):
            await process.wait()

    assert process.returncode != 0
    assert namespaces() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@pytest.mark.usefixtures("tools")
def test_a_run_from_the_command_line_writes_its_results(tmp_path):
    argv = [
        "--only",
        "requests",
        "--peers",
        "haproxy",
        "--rounds",
        "1",
        "--seconds",
        "1",
        "--no-calm",
        "--results",
        str(tmp_path),
    ]

    done = subprocess.run(
        [sys.executable, "-m", "bench", *argv], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "keep-alive requests/s" in done.stdout
    report = json.loads((tmp_path / "latest.json").read_text())
    assert report["peers"]["haproxy"]["started_as"]["requests"]["argv"][0] == "haproxy"
    assert str(ROOT) not in (tmp_path / "latest.json").read_text()
    assert "nbthread 1" in report["peers"]["haproxy"]["started_as"]["requests"]["files"]["haproxy.cfg"]
    assert [figure["metric"] for figure in report["figures"]] == ["requests_s", "p50_us", "p99_us"]
    assert report["readings"][0]["measured"]["command"].startswith("wrk ")
    assert (tmp_path / "latest.svg").read_text().startswith("<svg")
    assert "| HAProxy, splice-auto |" in (tmp_path / "latest.md").read_text()


def test_a_name_that_is_no_peer_is_refused():
    done = CliRunner().invoke(cli.main, ["--peers", "haproxy,squid"])

    assert done.exit_code == 2
    assert (
        "'squid' is none of marchproxy, marchproxy-ebpf, marchproxy-xdp, haproxy, nginx, envoy, kernel, direct"
        in done.output
    )
