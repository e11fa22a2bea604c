"""The public tests of HTTP caches (cache-tests.fyi) against the daemon: what passed before passes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import attrs
import pytest

from marchproxy_core.testing.pytest_plugin import leave_out
from tests.suites.processes import free_ports, proxy, running

_HERE = Path(__file__).parent
_SUITE = _HERE / "node_modules/http-cache-tests"
_RECORDED = json.loads((_HERE / "recorded.json").read_text())
"""How many tests of each kind passed, and why those that are required and fail do so."""
_LONGEST_S = 120
_MOST_PLAYS = 3
"""A hundred tests run at once, with answers that are fresh for a second or two: on a busy host that may not be enough,
so all are played again if less passes than is recorded, and what passed once passes."""


@attrs.frozen
class Played:
    """What came of the tests."""

    plays: int

    kinds: dict[str, str]
    """Of each test: required, optimal, or check, which is neither right nor wrong."""
    failed: dict[str, str]
    """Why, of those that did not pass."""

    def failed_of(self, kind: str) -> dict[str, str]:
        return {test: why for test, why in self.failed.items() if self.kinds[test] == kind}

    def score(self) -> dict[str, tuple[int, int]]:
        """How many passed, of how many, by kind."""
        return {
            kind: (count - len(self.failed_of(kind)), count)
            for kind, count in Counter(self.kinds.values()).items()
        }


def node(*arguments: str, **settings: str) -> str:
    """Run a program of the suite; the settings are those that npm would hand over."""
    environ = os.environ | {f"npm_config_{name}": value for name, value in settings.items()}
    # npm gives the defaults of package.json too, and the suite needs this one to run all of its tests.
    environ |= {"npm_package_config_id": ""}
    command = ["node", "--no-warnings", *arguments]
    ran = subprocess.run(
        command, cwd=_HERE, env=environ, capture_output=True, text=True, timeout=_LONGEST_S, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    if shutil.which("node") is None:
        leave_out("no node: install nodejs and npm, see scripts/packages.txt")
    if not _SUITE.is_dir():
        leave_out("no http-cache-tests: run scripts/node-packages")
    directory = tmp_path_factory.mktemp("http-cache-tests")
    back, port = free_ports(2)
    service = f"listen: 127.0.0.1:{port}, cache_enabled: true, cache_ttl: 0, backends: [127.0.0.1:{back}]"
    environ = os.environ | {
        "npm_config_protocol": "http",
        "npm_config_port": str(back),
        "npm_config_pidfile": str(directory / "pid"),
    }
    origin = ["node", str(_SUITE / "server/server.mjs")]
    with (
        running(origin, directory, ports=[back], environ=environ),
        proxy(directory / "proxy", f"  - {{name: cached, {service}}}\n", ports=[port]) as log,
    ):
        played = play(port)
        assert "worker.handler_failed" not in log.read_text()
    return played


def play(port: int) -> Played:
    kinds = json.loads(node(str(_HERE / "tests.mjs")))
    failed = dict.fromkeys(kinds, "")
    for number in range(1, _MOST_PLAYS + 1):
        results = json.loads(node(str(_SUITE / "cli.mjs"), base=f"http://127.0.0.1:{port}"))
        assert results.keys() == kinds.keys()
        failed = {test: ": ".join(map(str, results[test])) for test in failed if results[test] is not True}
        played = Played(number, kinds, failed)
        if not too_few(played):
            break
    return played


def too_few(played: Played) -> dict[str, int]:
    """How many passed of each kind of which less did than is recorded."""
    least = _RECORDED["passed"]
    return {kind: passed for kind, (passed, _) in played.score().items() if passed < least[kind]}


def test_no_less_passes_than_is_recorded(played, capsys):
    score = sorted(played.score().items())
    told = ", ".join(f"{passed} of {count} {kind}" for kind, (passed, count) in score)
    with capsys.disabled():
        print(f"\nhttp-cache-tests, played {played.plays} times: {told}")  # noqa: T201 - for who runs the tests
    assert dict(score).keys() == _RECORDED["passed"].keys()
    assert too_few(played) == {}, played.failed


def test_what_is_required_and_fails_has_a_reason(played):
    assert played.failed_of("required").keys() == _RECORDED["required_that_fail"].keys()
