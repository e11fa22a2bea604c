"""nghttp over TLS: several streams in one connection."""

from __future__ import annotations

import shutil
import subprocess

from marchproxy_core.testing.pytest_plugin import leave_out

_LONGEST_S = 60


def test_several_streams(port):
    nghttp = shutil.which("nghttp")
    if nghttp is None:
        leave_out("no nghttp: install nghttp2-client")
    urls = [f"https://127.0.0.1:{port}/?{number}" for number in range(20)]
    command = [nghttp, "-nv", "--no-verify-peer", *urls]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_LONGEST_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(":status: 200") == len(urls)
    assert "The negotiated protocol: h2" in done.stdout
