"""Autobahn's cases, as kosoku plays them: through the proxy, each ends as it does without it."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.suites.processes import free_ports, proxy, running

_ECHO = Path(__file__).with_name("echo.py")
_KOSOKU = Path(sysconfig.get_path("scripts")) / "kosoku"
_LONGEST_S = 120
_FEWEST = 12
_COMPRESSED = [f"{group}.{kind}.1" for group, kinds in ((12, 5), (13, 7)) for kind in range(1, kinds + 1)]
"""One of each kind. All 216 take ten minutes, since each is a thousand messages, compressed by Python at both ends."""
_PARTS = {
    "framing": ["-x", "9.*", "-x", "12.*", "-x", "13.*"],
    "long messages": ["-i", "9.*"],
    "compressed messages": [word for case in _COMPRESSED for word in ("-i", case)],
}

Result = tuple[str, str, int | None]


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    """The echo server's, and that of the proxy in front of it."""
    directory = tmp_path_factory.mktemp("websocket")
    back, port = free_ports(2)
    service = f"listen: 127.0.0.1:{port}, http: true, websocket: true, backends: [127.0.0.1:{back}]"
    with (
        running([sys.executable, str(_ECHO), str(back)], directory, ports=[back]),
        proxy(directory / "proxy", f"  - {{name: ws, {service}}}\n", ports=[port]),
    ):
        yield back, port


@pytest.mark.parametrize("part", _PARTS)
def test_each_case_ends_as_without_the_proxy(ports, part, tmp_path):
    direct, through = (results(port, _PARTS[part], tmp_path / str(port)) for port in ports)
    assert len(direct) >= _FEWEST
    assert {case: result for case, result in through.items() if result != direct.get(case)} == {}
    assert through.keys() == direct.keys()
    assert {
        case for case, (behavior, *_) in through.items() if behavior not in ("OK", "INFORMATIONAL")
    } == set()


def results(port: int, cases: list[str], directory: Path) -> dict[str, Result]:
    """Play cases; return behavior, behavior at closing and the code that the server closed with."""
    command = [_KOSOKU, "-m", "fuzzingclient", f"ws://127.0.0.1:{port}", *cases, "-p", "4", "-o", directory]
    subprocess.run(command, check=False, capture_output=True, timeout=_LONGEST_S)
    (played,) = json.loads((directory / "index.json").read_text()).values()
    return {
        case: (result["behavior"], result["behaviorClose"], result["remoteCloseCode"])
        for case, result in played.items()
    }
