"""The generator's packets: what they are, and how they go through the engine and to the sink, or are dropped."""

from __future__ import annotations

import os
import shutil
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from bench.packets import programs, traffic, turns
from bench.packets.carriers import CARRIERS
from bench.packets.cli import refuse_what_is_missing
from bench.packets.droppers import DROPPERS
from bench.packets.stage import set_up
from bench.packets.traffic import PLAN_BYTES, Ends, Point
from marchproxy_core.bpf import Map, MapSpec, MapType, run_program
from marchproxy_core.errors import MarchProxyError
from marchproxy_core.testing.lab.naming import own_names
from marchproxy_core.testing.pytest_plugin import leave_out

CARRIER = {carrier.name: carrier for carrier in CARRIERS}
DROPPER = {carrier.name: carrier for carrier in DROPPERS}
ENDS = Ends(
    source=IPv4Address("198.18.0.2"),
    destination=IPv4Address("198.18.0.1"),
    source_mac=bytes.fromhex("020000000002"),
    destination_mac=bytes.fromhex("020000000001"),
    interface=1,
)
pytestmark = pytest.mark.root


@pytest.fixture
def cpu():
    try:
        refuse_what_is_missing()
    except MarchProxyError as missing:
        leave_out(str(missing))
    if shutil.which("nft") is None:
        leave_out("needs nftables: scripts/system-packages installs it")
    return max(os.sched_getaffinity(0))


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("name", list(CARRIER))
async def test_every_flow_opens_and_packets_come_through(name, protocol, cpu):
    point = Point(protocol, flows=40, services=4)

    async with set_up(CARRIER[name], point, cpu=cpu) as stage:
        opened = stage.received()
        sample = await stage.measure(0.05)

    assert opened >= point.flows
    assert sample.received > 0
    assert sample.offered > 0
    assert sample.core_s > 0
    assert sample.refusal is None
    assert own_names() == ()


@pytest.mark.parametrize("name", list(DROPPER))
async def test_what_comes_from_blocked_prefixes_is_dropped_and_counted(name, cpu):
    point = Point("udp", flows=40, services=1, prefixes=40)

    async with set_up(DROPPER[name], point, cpu=cpu) as stage:
        sample = await stage.measure(0.05, profile=True)

    assert sample.offered > 0
    assert sample.received > 0
    assert sample.program_ns > 0
    assert sample.refusal is None
    assert own_names() == ()


def generated(point, runs):
    """Return the frame that the generator makes in its last run."""
    with (
        Map.create(MapSpec(name="plan", type=MapType.ARRAY, value_size=PLAN_BYTES, max_entries=1)) as plan,
        Map.create(programs.COUNT) as count,
        programs.load("generate", [plan, count]) as generate,
    ):
        plan.update(bytes(4), traffic.plan(point, ENDS))
        template = traffic.template(point.protocol, ENDS)
        # One CPU counts the flows.
        os.sched_setaffinity(0, {min(before := os.sched_getaffinity(0))})
        try:
            return Ether(run_program(generate, template, repeat=runs).data_out)
        finally:
            os.sched_setaffinity(0, before)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_generated_frames_are_in_order(protocol, cpu):
    frame = generated(Point(protocol, flows=7, services=2), runs=6)
    again = frame.copy()
    del again[IP].chksum, again.getlayer(2).chksum

    assert (frame[IP].src, frame.sport, frame.dport) == (str(ENDS.source), 2005, 1001)
    assert bytes(Ether(bytes(again))) == bytes(frame)


def test_as_many_flows_as_prefixes_come_from_each_of_them_once(cpu):
    point = Point("udp", flows=10, services=1, prefixes=10)
    frames = [generated(point, runs=number) for number in range(1, 11)]

    assert {frame[IP].src for frame in frames} == {f"10.0.{number}.1" for number in range(10)}
    for frame in frames:
        again = frame.copy()
        del again[IP].chksum, again[UDP].chksum
        assert bytes(Ether(bytes(again))) == bytes(frame)


async def test_a_turn_that_fails_says_what_the_carrier_said(cpu):
    told = []
    one = Point("udp", flows=1, services=100_000)  # beyond the last port

    (reading,) = await turns.take(
        [CARRIER["nftables"]], [one], rounds=1, seconds=0.05, cpu=cpu, tell=told.append
    )

    assert told == [reading]
    assert reading.sample is None
    assert "nft ended with 1" in reading.failure
