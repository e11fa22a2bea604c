"""Dialogues in raw HTTP/1.1 through the daemon, byte by byte, as scripts of varnishtest (vtc(7))."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from marchproxy_core.testing.pytest_plugin import leave_out
from tests.suites.processes import free_ports, proxy

_SCRIPTS = sorted(Path(__file__).parent.glob("*.vtc"))
_WISHES = re.compile(r"# service: (.+)")
"""What a script wants of its service besides HTTP, in its first line."""
_LONGEST_S = 60


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    """Of each script by its name, where the proxy takes its requests, and where its backend is to be."""
    directory = tmp_path_factory.mktemp("varnishtest")
    free = free_ports(2 * len(_SCRIPTS))
    fronts, backs = free[::2], free[1::2]
    services = ""
    for script, front, back in zip(_SCRIPTS, fronts, backs, strict=True):
        wishes = _WISHES.match(script.read_text())
        more = f", {wishes[1]}" if wishes else ""
        services += (
            f"  - {{name: {script.stem}, listen: 127.0.0.1:{front}, http: true,"
            f" backends: [127.0.0.1:{back}]{more}}}\n"
        )
    with proxy(directory / "proxy", services, ports=fronts) as log:
        names = [script.stem for script in _SCRIPTS]
        yield dict(zip(names, zip(fronts, backs, strict=True), strict=True))
        assert "worker.handler_failed" not in log.read_text()


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda script: script.stem)
def test_dialogue(ports, script, tmp_path):
    front, back = ports[script.stem]
    macros = [f"-Dproxy=127.0.0.1 {front}", f"-Dbackend=127.0.0.1 {back}"]
    command = ["varnishtest", *macros, "-t", str(_LONGEST_S), str(script)]
    try:
        ran = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=2 * _LONGEST_S, check=False
        )
    except FileNotFoundError:
        leave_out("no varnishtest: install varnish, see scripts/packages.txt")
    assert ran.returncode == 0, ran.stdout
