"""The filesystem whose files are BPF objects: whether it is mounted, and mounting it.

systemd mounts it at /sys/fs/bpf; containers and small systems often have none there.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import attrs

BPFFS = Path("/sys/fs/bpf")

_MOUNTS = Path("/proc/self/mountinfo")
_FILESYSTEMS = Path("/proc/filesystems")


@attrs.frozen
class Mount:
    """A mounted bpffs."""

    read_only: bool


def find_bpffs(path: Path) -> Mount | None:
    """Return the bpffs that ``path`` is in; None when it is in another filesystem, or not there at all."""
    try:
        device = path.stat().st_dev
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        # proc_pid_mountinfo(5): id, parent, device, root, mount point, options, fields, "-", type, source, options.
        mount, _, kind = line.partition(" - ")
        fields = mount.split()
        if fields[2] == number and kind.split()[0] == "bpf":
            return Mount(read_only="ro" in fields[5].split(","))
    return None


def can_mount(path: Path) -> bool:
    """Whether a process with CAP_SYS_ADMIN could mount a bpffs there."""
    known = _FILESYSTEMS.read_text(encoding="ascii", errors="replace").split()
    return "bpf" in known and path.is_dir()


def ensure_bpffs(path: Path = BPFFS) -> None:
    """Mount a bpffs there for root alone, as iproute2 and bpftool do, unless there is one. Nobody unmounts it.

    Raises:
        OSError: EPERM without CAP_SYS_ADMIN; ENOENT; ENODEV: a kernel without it.
    """
    if find_bpffs(path) is not None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700") != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"need a bpffs, cannot mount one: {os.strerror(number)}", str(path))
