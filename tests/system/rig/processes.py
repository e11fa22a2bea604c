"""What /proc shows of a process."""

from __future__ import annotations

import os
from pathlib import Path


def children(pid: int) -> list[int]:
    """Return its children, oldest first."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, tasks.read_text(encoding="ascii").split())
        except OSError:
            continue
    return sorted(found)


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def sockets(pid: int) -> set[str]:
    """Return the inodes of its sockets."""
    return {link for link in _links(pid) if link.startswith("socket:")}


def descriptors(pid: int) -> int:
    """Count its descriptors."""
    return len(_links(pid))


def pipes(pid: int) -> int:
    """Count its descriptors of pipes."""
    return sum(link.startswith("pipe:") for link in _links(pid))


def memory(pid: int) -> int:
    """Return its memory in bytes: all that it has for itself, and its part of what it shares (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _links(pid: int) -> list[str]:
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(fd))
        except OSError:
            continue
    return found
