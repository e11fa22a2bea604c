"""Node's client of HTTP/2 over TLS: many streams at once, one given up, and a WebSocket in one (RFC 8441)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from marchproxy_core.testing.pytest_plugin import leave_out
from tests.suites.browser.keys import NAME

_CLIENT = Path(__file__).with_name("client.mjs")
_LONGEST_S = 60
_CANCEL = 8  # RFC 9113, section 7


def test_streams_of_all_kinds(port, keys):
    node = shutil.which("node")
    if node is None:
        leave_out("no node: install nodejs")
    command = [node, str(_CLIENT), f"https://127.0.0.1:{port}", str(keys.authority), NAME]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_LONGEST_S)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    posts = told.pop("posts")
    assert [(post["status"], post["via"]) for post in posts] == [(200, "1.1 marchproxy")] * 40
    assert [post["size"] for post in posts] == [len(str(number * 5000)) for number in range(40)]
    head = told.pop("head")
    assert head["status"] == 200
    assert head["size"] == 0 < int(head["length"])
    assert told == {
        "protocol": "h2",
        "connect": True,
        "ping": True,
        "page": 200,
        "abandoned": _CANCEL,
        "websocket": {"status": 200, "echoed": True},
        "after": 200,
    }
