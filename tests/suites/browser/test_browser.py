"""A browser loads a page over TLS and HTTP/2 through the proxy, and has a WebSocket to the server behind it."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from marchproxy_core.testing.pytest_plugin import leave_out
from tests.suites.browser.keys import NAME

if TYPE_CHECKING:
    from pathlib import Path

_BROWSER = "chromium-headless-shell"
_LONGEST_S = 60


def dumped(port: int, pin: str, directory: Path, *more: str) -> dict[str, str]:
    """Have the browser load the page; return what it tells in its list, by name."""
    if shutil.which(_BROWSER) is None:
        leave_out(f"no browser: install {_BROWSER}")
    done = subprocess.run(
        [
            _BROWSER,
            "--no-sandbox",  # Chromium has none for root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={directory}",
            f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
            f"--ignore-certificate-errors-spki-list={pin}",
            *more,
            "--dump-dom",
            f"https://{NAME}:{port}/?{directory.name}",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
    )
    told = dict(re.findall(r'<li id="(\w+)">([^<]*)</li>', done.stdout))
    assert told, done.stdout + done.stderr
    return told


def test_a_page_with_a_websocket(port, keys, tmp_path):
    assert dumped(port, keys.pin, tmp_path) == {
        "page": "h2",
        "socket": "via 2.0 marchproxy",
        "echo": "same",
        "close": "1000 true",
        "fetch": "200 60000",
    }


def test_the_same_without_http2(port, keys, tmp_path):
    assert dumped(port, keys.pin, tmp_path, "--disable-http2") == {
        "page": "http/1.1",
        "socket": "via 1.1 marchproxy",
        "echo": "same",
        "close": "1000 true",
        "fetch": "200 60000",
    }
