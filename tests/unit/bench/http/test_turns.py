"""Turns through the laboratory with a real peer: each kind of generator and of backend."""

from __future__ import annotations

import os
import shutil

import attrs
import pytest

from bench import turns
from bench.http.metrics import metrics_of
from bench.http.peers import PEERS
from bench.http.shape import Shape
from bench.http.workloads import WITH_ONE, WITH_TWO
from marchproxy_core.testing.lab.naming import own_names
from marchproxy_core.testing.pytest_plugin import leave_out

PEER = {peer.name: peer for peer in PEERS}
WORKLOAD = {workload.name: workload for workload in (*WITH_ONE, *WITH_TWO)}


@pytest.fixture
def tools():
    missing = [tool for tool in ("nginx", "wrk", "h2load", "openssl") if shutil.which(tool) is None]
    if missing:
        leave_out(f"needs {', '.join(missing)}: scripts/system-packages installs them")
    if len(os.sched_getaffinity(0)) < 2:
        leave_out("needs two CPUs")


async def turn(workload, peer="nginx"):
    (reading,) = await turns.take(
        [PEER[peer]], [workload], rounds=1, seconds=1, calm=False, tell=lambda _: None
    )
    assert own_names() == ()
    return reading


@pytest.mark.root
@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    "name", ["varied", "download", "upload", "tls_resumed", "http2", "websocket", "cached", "connections_2"]
)
async def test_a_turn_through_nginx_gives_every_figure(name):
    reading = await turn(WORKLOAD[name])

    assert reading.failure is None
    keys = {metric.key for metric in attrs.astuple(metrics_of(name), recurse=False)}
    assert set(reading.measured.values) == keys
    assert min(reading.measured.values.values()) > 0
    assert reading.measured.notes["count"] > 0


@pytest.mark.root
@pytest.mark.usefixtures("tools")
async def test_answers_that_do_not_come_from_a_cache_are_no_figure_of_one():
    reading = await turn(attrs.evolve(WORKLOAD["cached"], http=Shape()))

    assert "not cached: the backend saw" in reading.failure


@pytest.mark.root
@pytest.mark.usefixtures("tools")
async def test_without_a_proxy_there_is_a_rate_but_no_memory():
    reading = await turn(WORKLOAD["http2"], "direct")

    keys = metrics_of("http2")
    assert set(reading.measured.values) == {keys.rate.key, keys.p50.key, keys.p99.key}
