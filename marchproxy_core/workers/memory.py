"""How much memory the whole daemon uses: this process and all its descendants. Blocks; call it in a thread."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)


def daemon_memory_bytes() -> int:
    """Return the proportional set size of this process and its descendants (proc_pid_smaps_rollup, Linux 4.14).

    Pages that processes share are counted once. Kernel memory, as socket buffers, is not in it.
    """
    return sum(_pss_bytes(pid) for pid in _with_descendants(os.getpid()))


def _with_descendants(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in children.read_text(encoding="ascii").split())
            except OSError:
                continue  # the thread or process is gone
    return found


def _pss_bytes(pid: int) -> int:
    try:
        match = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
    except OSError:
        return 0  # it is gone
    return int(match[1]) * 1024 if match else 0
