"""The daemon's memory is that of all its processes."""

from __future__ import annotations

import subprocess
import sys

from marchproxy_core.workers.memory import daemon_memory_bytes

HOG = "data = b'x' * (64 << 20); print('here', flush=True); input()"


def test_descendants_count() -> None:
    before = daemon_memory_bytes()
    assert before > 1 << 20
    with subprocess.Popen(
        [sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        assert daemon_memory_bytes() - before > 60 << 20
        child.communicate("\n")
