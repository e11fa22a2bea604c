"""The generator's packets, through the engine and to the sink, between real namespaces."""

from __future__ import annotations

import os
import shutil

import pytest

from bench.packets import programs, turns
from bench.packets.carriers import CARRIERS
from bench.packets.cli import refuse_what_is_missing
from bench.packets.stage import set_up
from bench.packets.traffic import Point
from marchproxy_core.errors import MarchProxyError
from marchproxy_core.testing.lab.naming import own_names
from marchproxy_core.testing.pytest_plugin import leave_out

CARRIER = {carrier.name: carrier for carrier in CARRIERS}
pytestmark = pytest.mark.root


@pytest.fixture
def cpus():
    try:
        refuse_what_is_missing()
    except MarchProxyError as missing:
        leave_out(str(missing))
    if shutil.which("nft") is None:
        leave_out("needs nftables: scripts/system-packages installs it")
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize("name", list(CARRIER))
async def test_every_flow_opens_and_packets_come_through(name, protocol, cpus):
    generator_cpu, core_cpu = cpus
    point = Point(protocol, flows=40, services=4)

    async with set_up(CARRIER[name], point, generator_cpu=generator_cpu, core_cpu=core_cpu) as stage:
        opened = programs.packets(stage.sink)
        sample = await stage.measure(0.05)

    assert opened >= point.flows
    assert sample.received > 0
    assert sample.offered >= sample.received
    assert sample.core_s > 0
    assert own_names() == ()


async def test_a_turn_that_fails_says_what_the_carrier_said(cpus):
    told = []
    one = Point("udp", flows=1, services=100_000)  # beyond the last port

    (reading,) = await turns.take(
        [CARRIER["nftables"]], [one], rounds=1, seconds=0.05, cpus=cpus, tell=told.append
    )

    assert told == [reading]
    assert reading.sample is None
    assert "nft ended with 1" in reading.failure
