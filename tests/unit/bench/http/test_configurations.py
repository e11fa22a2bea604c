"""What peers are told, and that those which are installed take it."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
from contextlib import closing

import pytest

from bench.configurations import Service
from bench.http.configurations import PEER_LOG
from bench.http.peers import DIRECT, OURS, PEERS
from bench.http.servers import make_certificate
from bench.http.shape import Shape
from bench.http.workloads import WITH_ONE, WITH_TWO
from marchproxy_core.testing.pytest_plugin import leave_out

PEER = {peer.name: peer for peer in PEERS}
WORKLOADS = {workload.name: workload for workload in (*WITH_ONE, *WITH_TWO)}
SHAPES = [
    Shape(workers=workers, tls=tls, cache=cache, websocket=websocket)
    for workers, tls, cache, websocket in itertools.product((1, 2), *3 * [(False, True)])
]
CHECKS = {
    "nginx": ("-t",),
    "haproxy": ("-c",),
    "envoy": ("--mode", "validate"),
}
OF_THE_EXTRA = [name for name in ("envoy", "caddy") if PEER[name].missing() is None]
"""Tests need no peers of PyPI (pyproject.toml, bench), but hold to those that are there."""


def service(shape):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    return Service(protocol="tcp", front="127.0.0.1", backend="127.0.0.1", port=port, http=shape)


def checking(name, argv):
    if name == OURS:
        return [argv[0], "check", "--config", argv[-1]]
    if name == "caddy":
        return ["validate" if word == "run" else word for word in argv]
    program = shutil.which(name) if name == "haproxy" else argv[0]  # Debian's takes the same words
    return [program, *argv[1:], *CHECKS[name]]


@pytest.mark.parametrize("name", [OURS, "haproxy", "nginx", *OF_THE_EXTRA])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[-1]], ids=["plain", "everything"])
def test_a_peer_that_is_here_takes_its_configuration(tmp_path, name, shape):
    if name not in (OURS, *OF_THE_EXTRA) and shutil.which(name) is None:
        leave_out(f"needs {name}: scripts/system-packages installs it")
    if name == "nginx" and os.geteuid() != 0:
        leave_out("nginx is configured to run as root")
    make_certificate(tmp_path)

    argv = checking(name, PEER[name].write(tmp_path, service(shape)))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [peer.name for peer in PEERS if peer.name != DIRECT])
def test_each_has_its_workers_and_says_where_its_requests_are_logged(tmp_path, name):
    one, two = tmp_path / "1", tmp_path / "2"
    told = []
    for directory, workers in ((one, 1), (two, 2)):
        directory.mkdir()
        front = Service(protocol="tcp", front="127.0.0.1", backend="::1", port=1, http=Shape(workers=workers))
        argv = PEER[name].write(directory, front)
        files = [file.read_text() for file in sorted(directory.iterdir()) if file.suffix != ".pem"]
        told.append(str([*argv, *files]).replace(str(directory), "HERE"))

    assert told[0] != told[1]
    log = PEER[name].access_log
    assert log == PEER_LOG or f"HERE/{log}" in told[0]


def test_who_has_no_cache_takes_no_part_where_answers_are_cached():
    taking = {name: [peer.name for peer in PEERS if WORKLOADS[name].takes(peer)] for name in WORKLOADS}

    assert taking["cached"] == taking["cached_2"] == [OURS, "haproxy", "nginx", DIRECT]
    assert len(taking["small"]) == len(taking["small_2"]) == len(PEERS)
    assert WORKLOADS["cached"].lacks(PEER["caddy"]) == "it has no cache"


def test_with_two_workers_nobody_is_braked_and_all_have_two():
    assert {one.http.workers for one in WITH_ONE} == {1}
    assert {(one.http.workers, one.when_tight) for one in WITH_TWO} == {(2, "share")}
    assert "tls_full_2" not in WORKLOADS


def test_openssl_is_there():
    assert shutil.which("openssl") is not None
