"""Moving this process's trio threads into a namespace of a laboratory and home again.

A network namespace is a property of each thread. What a tier under test opens, starts and probes happens in the
thread that runs trio, or in one of trio's worker threads; of the latter the idle ones are kept and used again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from pyroute2 import netns

from marchproxy_core.testing.census import idle_trio_threads

if TYPE_CHECKING:
    from marchproxy_core.testing.lab.namespace import Namespace

_DEADLINE_S = 10.0


@asynccontextmanager
async def inside(namespace: Namespace) -> AsyncIterator[None]:
    """Have the calling thread and trio's idle threads in the namespace for as long as the block runs.

    Threads that are busy at either end stay where they are.
    """
    await trio.lowlevel.checkpoint()
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _move(target)
            yield
        finally:
            os.close(target)
            _move(home)
    finally:
        os.close(home)


def _move(target: int) -> None:
    """Move the calling thread, then every idle one: as many jobs as there are threads, none ends before all run."""
    netns.setns(target)
    count = len(idle_trio_threads())
    meeting = threading.Barrier(count + 1)

    def move_too() -> None:
        netns.setns(target)
        meeting.wait(_DEADLINE_S)

    for _ in range(count):
        trio.lowlevel.start_thread_soon(move_too, lambda outcome: outcome.unwrap())
    meeting.wait(_DEADLINE_S)
