"""What is looked at over and over: whether workers are alive, and how much memory the daemon uses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
import trio

from marchproxy_core.workers.ledger import BEAT, MEMORY_FULL
from marchproxy_core.workers.memory import daemon_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from marchproxy_core.workers.ledger import Ledger
    from marchproxy_core.workers.process import WorkerProcess

log = structlog.get_logger()

HUNG_S = 5.0
"""A worker whose heart has not beaten for so long is killed."""
LOOK_S = 0.5
MEMORY_LOOK_S = 1.0


async def watch_hearts(ledger: Ledger, living: Callable[[], list[WorkerProcess]]) -> None:
    """Kill workers that hang; never ends."""
    suspects: set[WorkerProcess] = set()
    while True:
        await trio.sleep(LOOK_S)
        late = {
            worker
            for worker in living()
            if time.monotonic_ns() - ledger.regions[worker.region][BEAT] > HUNG_S * 1e9
        }
        # Two looks: after the whole daemon was stopped and continued, the first one finds all late.
        for worker in late & suspects:
            log.error("worker.hung", worker=worker.index, pid=worker.pid, silent_s=HUNG_S)
            worker.kill()
        suspects = late


async def watch_memory(ledger: Ledger, limit_bytes: int) -> None:
    """Tell the workers while the daemon uses more than ``MAX_MEMORY_MB``; never ends."""
    full = False
    while True:
        used_bytes = await trio.to_thread.run_sync(daemon_memory_bytes, abandon_on_cancel=True)
        if (used_bytes > limit_bytes) is not full:
            full = not full
            ledger.mine[MEMORY_FULL] = int(full)
            if full:
                log.warning("memory.ran_full", used_bytes=used_bytes, limit_bytes=limit_bytes)
            else:
                log.info("memory.freed", used_bytes=used_bytes, limit_bytes=limit_bytes)
        await trio.sleep(MEMORY_LOOK_S)
