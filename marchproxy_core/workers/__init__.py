"""Worker processes of tiers that move bytes in Python: started, watched, replaced; counted in shared memory.

A tier's control side uses :func:`open_worker_pool`. Its workers' side is a function ``main(worker)``, called in
each process with a :class:`~marchproxy_core.workers.child.Worker`. The names of the control side are loaded when
they are asked for: a worker process needs none of them, nor trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marchproxy_core.workers.pool import WorkerPool, open_worker_pool

__all__ = ["WorkerPool", "open_worker_pool"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from marchproxy_core.workers import pool

    return getattr(pool, name)
