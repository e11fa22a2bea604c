"""CPU time of a process tree, thread by thread, and of whole CPUs, between two moments.

Run and wait time come from /proc/PID/task/TID/schedstat (nanoseconds), not from utime and stime, and what a CPU was
busy is what it was not idle: the kernel measures idle time (get_cpu_idle_time_us, NO_HZ) where it only samples user
and system time at ticks, which goes wrong for threads that wake up often or in step with the tick.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from pathlib import Path

import attrs

from bench.readings import CpuShare


@attrs.frozen
class Moment:
    """Counters at one time.

    Args:
        at_s: Seconds of the monotonic clock.
        threads: The proxy's threads: nanoseconds run, nanoseconds waited for a CPU.
        strangers_ns: What each process that is not of the run ran, together with its children that ended.
        idle_s: What each CPU was idle, waiting for I/O too.
    """

    at_s: float
    threads: dict[int, tuple[int, int]]
    strangers_ns: dict[int, int]
    idle_s: dict[int, float]


def look(proxy_pid: int | None) -> Moment:
    """Read the counters of a proxy, of all processes that do not descend from this one, and of all CPUs.

    Args:
        proxy_pid: The process that was started as the proxy; None where there is none.
    """
    proxy = [] if proxy_pid is None else descendants(proxy_pid)
    threads = {tid: times for pid in proxy for tid, times in _threads(pid).items()}
    own = {*descendants(os.getpid()), *_packet_threads()}
    strangers = {pid: _with_children(pid) for pid in _numbers("/proc") if pid not in own}
    return Moment(time.monotonic(), threads, strangers, _idle_s())


def between(
    first: Moment, last: Moment, *, proxy_cpus: frozenset[int], generator_cpus: frozenset[int]
) -> CpuShare:
    """Return who used the CPUs between two moments."""
    wall_s = last.at_s - first.at_s
    grown = [_growth(first.threads.get(tid, (0, 0)), times, wall_s) for tid, times in last.threads.items()]
    worker_run, worker_wait = max(grown, key=sum, default=(0.0, 0.0))
    busy = {cpu: 1.0 - (idle_s - first.idle_s[cpu]) / wall_s for cpu, idle_s in last.idle_s.items()}
    return CpuShare(
        worker_run=worker_run,
        worker_wait=worker_wait,
        proxy_run=sum(run for run, _ in grown),
        proxy_wait=sum(wait for _, wait in grown),
        proxy_cpu=sum(busy[cpu] for cpu in proxy_cpus) / len(proxy_cpus),
        generator_cpus=sum(busy[cpu] for cpu in generator_cpus) / len(generator_cpus),
        strangers=sum(
            max(0, total - first.strangers_ns.get(pid, 0)) / 1e9 / wall_s
            for pid, total in last.strangers_ns.items()
        ),
    )


def descendants(root_pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for pid in _numbers("/proc"):
        parent = _parent(pid)
        if parent is not None:
            children.setdefault(parent, []).append(pid)
    found = [root_pid]
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, ()))
    return found


def _growth(first: tuple[int, int], last: tuple[int, int], wall_s: float) -> tuple[float, float]:
    return (last[0] - first[0]) / 1e9 / wall_s, (last[1] - first[1]) / 1e9 / wall_s


def _threads(pid: int) -> dict[int, tuple[int, int]]:
    """Return what each thread of a process ran and waited, in nanoseconds; those that end meanwhile are not there."""
    found: dict[int, tuple[int, int]] = {}
    for tid in _numbers(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            run, wait, _ = Path(f"/proc/{pid}/task/{tid}/schedstat").read_text(encoding="ascii").split()
            found[tid] = (int(run), int(wait))
    return found


@functools.cache
def _packet_threads() -> list[int]:
    """Return the pids of the kernel's ksoftirqd threads: under load they do the network's work for everybody."""
    found = []
    for pid in _numbers("/proc"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (
                Path(f"/proc/{pid}/comm")
                .read_text(encoding="utf-8", errors="replace")
                .startswith("ksoftirqd/")
            ):
                found.append(pid)
    return found


def _with_children(pid: int) -> int:
    """Return what a process ran, and what those of its children ran that it has waited for, in nanoseconds."""
    stat = _stat(pid)
    ended_ticks = int(stat[13]) + int(stat[14]) if stat else 0
    ended_ns = ended_ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return ended_ns + sum(run for run, _ in _threads(pid).values())


def _parent(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[1]) if stat else None


def _stat(pid: int) -> list[str]:
    """Return /proc/PID/stat from its third field on, the state; nothing if the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # proc(5): the second field is the command in parentheses, and may hold spaces and parentheses itself.
    return stat.rpartition(")")[2].split()


def _idle_s() -> dict[int, float]:
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    found: dict[int, float] = {}
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            _user, _nice, _system, idle, iowait, *_ = map(int, numbers)
            found[int(name[3:])] = (idle + iowait) * tick_s
    return found


def _numbers(directory: str) -> list[int]:
    """Return the entries of a directory of /proc that are numbers; none if it is gone."""
    try:
        return [int(name) for name in os.listdir(directory) if name.isdigit()]
    except (FileNotFoundError, ProcessLookupError):
        return []
