"""Worker processes of tiers that move bytes in Python: started, watched, replaced; counted in shared memory.

A tier's control side uses :func:`open_worker_pool`. Its workers' side is a function ``main(worker)``, called in
each process with a :class:`~marchproxy_core.workers.child.Worker`. The names of the control side are loaded when
they are asked for: a worker process needs none of them, nor trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marchproxy_core.workers.hooks import WorkersAttachment, attached_workers, report_of, runner_of
    from marchproxy_core.workers.pool import WorkerPool, open_worker_pool

__all__ = [
    "WorkerPool",
    "WorkersAttachment",
    "attached_workers",
    "open_worker_pool",
    "report_of",
    "runner_of",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from marchproxy_core.workers import hooks

    return getattr(hooks, name)
