"""Runs the packet table, and every frame of it cut short, on a plain build with sanitizers: in a process of its own.

AddressSanitizer must be loaded before all else, so Python is started with it; and its allocator must be that of Python
too, or it would know nothing of the small pieces of memory that frames are in.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from marchproxy_core.testing.packets.agreeing import cuts
from marchproxy_core.testing.packets.plain_engine import PlainTableEngine
from marchproxy_core.testing.packets.row import PLAIN, Row
from marchproxy_core.testing.packets.running import apply, run_row

FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")
"""For ``marchproxy_core.packet.plain.build``."""


def run_sanitized(library: Path, rows: Sequence[Row]) -> subprocess.CompletedProcess[bytes]:
    """Run rows in a process with the sanitizers; blocks for some seconds.

    Args:
        library: Built with :data:`FLAGS`.
        rows: Which ones.

    Returns:
        How it ended: a status other than 0, and the finding in ``stderr``, when a sanitizer found something.
    """
    compiler = os.environ.get("CC", "cc")
    answer = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    )
    environment = {
        **os.environ,
        "LD_PRELOAD": answer.stdout.strip(),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # Python itself gives back little at its end.
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return subprocess.run(
        [sys.executable, "-m", __name__, str(library)],
        check=False,
        capture_output=True,
        input=pickle.dumps(tuple(rows)),  # made here, since scapy is slow, and slower there
        env=environment,
    )


def main(library: Path, rows: Sequence[Row]) -> None:
    """Run rows on both plain builds, first as they are, then with their frames cut short."""
    done: set[bytes] = set()
    for build in sorted(PLAIN, key=lambda build: build.value):
        engine = PlainTableEngine(library, build)
        for row in rows:
            if row.fits(build):
                run_row(engine, row)
                if any(step.frame not in done for step in row.steps):
                    _run_cut(engine, row, done)


def _run_cut(engine: PlainTableEngine, row: Row, done: set[bytes]) -> None:
    engine.begin(row.world)
    for step in row.steps:
        for change in step.changes:
            apply(engine, change)
        if step.frame not in done:
            done.add(step.frame)
            for cut in cuts(step.frame):
                engine.run_cut(cut)
        engine.run_cut(step.frame)


if __name__ == "__main__":
    main(Path(sys.argv[1]), pickle.load(sys.stdin.buffer))
