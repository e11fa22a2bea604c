"""Named network namespaces that know their owner, so that those of a dead owner can be swept away.

Blocking calls only, for use in a thread. A name is ``mplab-PID-START-SERIAL-LABEL``, with the owner's pid and its
start time in clock ticks, since pids are used again.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pyroute2 import netns

from marchproxy_core.errors import MarchProxyError

T = TypeVar("T")

_RUN_DIR = Path("/run/netns")
_NAME = re.compile(r"mplab-(\d+)-(\d+)-(\d+)-[a-z0-9]+")
_CLONE_NEWNET = 0x40000000
_serials = itertools.count(1)


class LabUnavailable(MarchProxyError):
    """This host cannot make the laboratory."""

    def __init__(self, need: str, have: str, fix: str) -> None:
        super().__init__(f"the namespace lab needs {need}, have {have} - fix: {fix}")


def path_of(name: str) -> Path:
    """Where the namespace of that name is mounted, for ``nsenter --net=``."""
    return _RUN_DIR / name


def new_serial() -> int:
    """Return a number that no other laboratory of this process has."""
    return next(_serials)


def create(serial: int, label: str) -> str:
    """Make a namespace owned by this process and return its name.

    Raises:
        LabUnavailable: No right to make one.
    """
    pid = os.getpid()
    name = f"mplab-{pid}-{_start_time(pid)}-{serial}-{label}"
    libc = ctypes.CDLL(None, use_errno=True)

    def make() -> None:
        # unshare(2) moves just the calling thread; it ends right after, so nothing else ever runs in there.
        if libc.unshare(_CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise LabUnavailable(
                "the right to make network namespaces", os.strerror(code), "run as root, outside of a sandbox"
            )
        netns.attach(name, "thread-self")

    in_own_thread(make)
    return name


def remove(name: str) -> None:
    """Kill what still runs inside the namespace, then remove its name. Nothing happens when it is gone."""
    for pid_fd in _processes_inside(path_of(name)):
        try:
            signal.pidfd_send_signal(pid_fd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pid_fd)
    with contextlib.suppress(FileNotFoundError):
        netns.remove(name)


def sweep() -> tuple[str, ...]:
    """Remove the namespaces whose owner is dead, with all that runs inside, and return their names."""
    dead = tuple(sorted(name for name in _names() if not _owner_lives(name)))
    for name in dead:
        remove(name)
    return dead


def own_names() -> tuple[str, ...]:
    """Return the names of the namespaces that this process owns."""
    return tuple(name for name in _names() if name.startswith(f"mplab-{os.getpid()}-"))


def within(path: Path, work: Callable[[], T]) -> T:
    """Run ``work`` in the namespace, in the calling thread, and come back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            netns.setns(target)
        finally:
            os.close(target)
        try:
            return work()
        finally:
            netns.setns(home)
    finally:
        os.close(home)


def in_own_thread(work: Callable[[], None]) -> None:
    """Run ``work`` in a thread of its own and raise what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _names() -> list[str]:
    try:
        return [name for name in os.listdir(_RUN_DIR) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return []


def _owner_lives(name: str) -> bool:
    match = _NAME.fullmatch(name)
    assert match is not None
    try:
        return _start_time(int(match[1])) == int(match[2])
    except (FileNotFoundError, ProcessLookupError):
        return False


def _start_time(pid: int) -> int:
    """Return field 22 of /proc/PID/stat, proc(5): clock ticks since boot. A zombie counts as dead."""
    # The second field is the command in parentheses, and may hold spaces and parentheses itself.
    fields = (
        Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    )
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def _processes_inside(path: Path) -> Iterator[int]:
    """Yield a pidfd of each process in the namespace, but for this one; whoever iterates closes it."""
    try:
        inside = path.stat()
    except FileNotFoundError:
        return
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            pid_fd = os.pidfd_open(int(entry))
        except OSError:
            continue
        # Looked at only once the pidfd holds the process: the pid cannot come to mean another one.
        try:
            found = Path(f"/proc/{entry}/ns/net").stat()
        except OSError:
            os.close(pid_fd)
            continue
        if (found.st_dev, found.st_ino) == (inside.st_dev, inside.st_ino):
            yield pid_fd
        else:
            os.close(pid_fd)
