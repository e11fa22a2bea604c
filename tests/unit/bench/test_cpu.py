"""CPU time of real processes."""

from __future__ import annotations

import os
import subprocess
import sys

import trio

from bench import cpu
from bench.cpu import Moment
from bench.readings import CpuShare
from marchproxy_core.testing import until

SPINS = "while True: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPINS!r}])"


def share(first, last):
    return cpu.between(first, last, proxy_cpus=frozenset({1}), generator_cpus=frozenset({0}))


def test_the_busiest_thread_is_the_worker_and_all_threads_are_the_proxy():
    first = Moment(10.0, {1: (0, 0), 2: (0, 0)}, {7: 0}, {0: 0.0, 1: 0.0})
    last = Moment(
        12.0, {1: (100_000_000, 0), 2: (1_200_000_000, 600_000_000)}, {7: 400_000_000}, {0: 0.5, 1: 0.0}
    )

    found = share(first, last)

    assert (found.worker_run, found.worker_wait) == (0.6, 0.3)
    assert found.demand == 0.6 + 0.3
    assert found.proxy_run == 0.65
    assert (found.proxy_cpu, found.generator_cpus) == (1.0, 0.75)
    assert found.strangers == 0.2


def test_who_moves_work_from_thread_to_thread_is_asked_as_a_whole():
    first = Moment(10.0, {1: (0, 0), 2: (0, 0)}, {}, {0: 0.0, 1: 0.0})
    last = Moment(12.0, {1: (600_000_000, 0), 2: (800_000_000, 500_000_000)}, {}, {0: 0.5, 1: 0.0})

    found = share(first, last).spread_over(1)

    assert (found.worker_run, found.worker_wait) == (0.7, 0.25)
    assert share(first, last).spread_over(2).demand == 0.35 + 0.125


def test_threads_that_wait_at_once_are_one_worker_that_waits():
    found = CpuShare(proxy_run=0.6, proxy_wait=0.9).spread_over(1)

    assert (found.worker_run, found.worker_wait) == (0.6, 0.4)


def test_a_thread_that_came_meanwhile_counts_from_nothing():
    found = share(
        Moment(0.0, {}, {}, {0: 0.0, 1: 0.0}), Moment(1.0, {9: (500_000_000, 0)}, {}, {0: 0.0, 1: 0.0})
    )

    assert found.worker_run == 0.5


def test_a_stranger_that_came_meanwhile_counts_and_one_that_went_does_not():
    first = Moment(0.0, {}, {1: 9_000_000_000}, {0: 0.0, 1: 0.0})
    last = Moment(1.0, {}, {2: 300_000_000}, {0: 0.0, 1: 0.0})

    assert share(first, last).strangers == 0.3


def test_without_a_proxy_no_worker_ran():
    found = share(Moment(0.0, {}, {}, {0: 0.0, 1: 0.0}), Moment(1.0, {}, {}, {0: 1.0, 1: 1.0}))

    assert (found.demand, found.proxy_run, found.proxy_cpu) == (0.0, 0.0, 0.0)


async def test_the_time_of_a_proxys_children_is_the_proxys():
    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, [sys.executable, "-c", PARENT])
        try:
            await until(lambda: len(cpu.descendants(process.pid)) == 2, what="the child")
            first = cpu.look(process.pid)

            def has_run() -> bool:
                return (
                    sum(run for run, _ in cpu.look(process.pid).threads.values()) > total(first) + 50_000_000
                )

            await until(has_run, what="CPU time of the child")
        finally:
            for pid in reversed(cpu.descendants(process.pid)):
                os.kill(pid, 9)
            nursery.cancel_scope.cancel()


def total(moment):
    return sum(run for run, _ in moment.threads.values())


def test_processes_of_this_run_are_no_strangers():
    process = subprocess.Popen([sys.executable, "-c", SPINS])
    try:
        moment = cpu.look(None)
    finally:
        process.kill()
        process.wait()

    assert process.pid not in moment.strangers_ns
    assert os.getpid() not in moment.strangers_ns
    assert os.getppid() in moment.strangers_ns


def test_a_process_that_is_gone_has_no_time():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert cpu.look(process.pid).threads == {}
