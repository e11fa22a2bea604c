"""CPU time of a process tree, thread by thread, and of whole CPUs, between two moments.

Run and wait time come from /proc/PID/task/TID/schedstat (nanoseconds), not from utime and stime: kernels that account
by ticks charge a thread that wakes up often with too little or too much.
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
        own_ns: What all processes of the run ran, and the kernel's threads that receive packets for them.
        busy_ticks: What each CPU was busy.
    """

    at_s: float
    threads: dict[int, tuple[int, int]]
    own_ns: int
    busy_ticks: dict[int, int]


def look(proxy_pid: int | None) -> Moment:
    """Read the counters of a proxy, of all that descends from this process, and of all CPUs. Reads /proc.

    Args:
        proxy_pid: The process that was started as the proxy; None where there is none.
    """
    proxy = [] if proxy_pid is None else descendants(proxy_pid)
    threads = {tid: times for pid in proxy for tid, times in _threads(pid).items()}
    own = descendants(os.getpid()) + _packet_threads()
    own_ns = sum(run for pid in own for run, _ in _threads(pid).values())
    return Moment(time.monotonic(), threads, own_ns, _busy_ticks())


def between(
    first: Moment, last: Moment, *, proxy_cpus: frozenset[int], generator_cpus: frozenset[int]
) -> CpuShare:
    """Return who used the CPUs between two moments."""
    wall_s = last.at_s - first.at_s
    grown = [_growth(first.threads.get(tid, (0, 0)), times, wall_s) for tid, times in last.threads.items()]
    worker_run, worker_wait = max(grown, key=sum, default=(0.0, 0.0))
    second_ticks = os.sysconf("SC_CLK_TCK") * wall_s
    busy = {cpu: (ticks - first.busy_ticks[cpu]) / second_ticks for cpu, ticks in last.busy_ticks.items()}
    return CpuShare(
        worker_run=worker_run,
        worker_wait=worker_wait,
        proxy_run=sum(run for run, _ in grown),
        proxy_cpu=sum(busy[cpu] for cpu in proxy_cpus) / len(proxy_cpus),
        generator_cpus=sum(busy[cpu] for cpu in generator_cpus) / len(generator_cpus),
        # A tick is charged to whoever runs when it comes, so the difference may fall a little below zero.
        strangers=max(0.0, sum(busy.values()) - (last.own_ns - first.own_ns) / 1e9 / wall_s),
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


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the second field is the command in parentheses, and may hold spaces and parentheses itself.
    return int(stat.rpartition(")")[2].split()[1])


def _busy_ticks() -> dict[int, int]:
    ticks: dict[int, int] = {}
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, numbers)
            ticks[int(name[3:])] = user + nice + system + irq + softirq
    return ticks


def _numbers(directory: str) -> list[int]:
    """Return the entries of a directory of /proc that are numbers; none if it is gone."""
    try:
        return [int(name) for name in os.listdir(directory) if name.isdigit()]
    except (FileNotFoundError, ProcessLookupError):
        return []
