"""The hooks of a tier whose work is done in worker processes: all but which services it takes.

A tier's ``plugin.py`` calls these from its own; only its name, its order and its workers' main function differ.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs

from marchproxy_core.model import (
    AttachContext,
    Attachment,
    Carries,
    ProbeReport,
    Requirement,
    Runner,
    ServiceTable,
)
from marchproxy_core.workers.pool import WorkerPool, open_worker_pool

if TYPE_CHECKING:
    import trio

    from marchproxy_core.host import HostFacts
    from marchproxy_core.table import Table

_KERNEL: Final = (4, 14, 0)  # smaps_rollup; SO_REUSEPORT, splice and EPOLLRDHUP are older


@attrs.define(eq=False, kw_only=True)
class WorkersAttachment(Attachment):
    """The worker processes."""

    pool: WorkerPool


def report_of(host: HostFacts, order: int) -> ProbeReport:
    """Say that it runs on any Linux of this decade, without any right.

    Args:
        host: Where it is to run.
        order: The tier's place in the chain.
    """
    return ProbeReport(
        order=order,
        carries=Carries.CONNECTIONS,
        keeps_door=True,
        requirements=(
            Requirement(
                need=f"Linux {_KERNEL[0]}.{_KERNEL[1]} or later",
                have=f"Linux {host.kernel_release}",
                fix="" if host.kernel >= _KERNEL else "boot a newer kernel",
                met=host.kernel >= _KERNEL,
                source="proc_pid_smaps_rollup, proc(5)",
            ),
        ),
    )


@asynccontextmanager
async def attached_workers(
    tier: str, entry: str, context: AttachContext, *, answers: bool = False
) -> AsyncIterator[WorkersAttachment]:
    """Start the worker processes; they end with the block.

    Args:
        tier: The tier's name.
        entry: The workers' main function, ``package.module:function``.
        context: What ``attach`` was given.
        answers: Whether the workers answer questions: what became of a request, and to forget what is cached.
    """
    async with open_worker_pool(tier=tier, entry=entry, context=context) as pool:
        yield WorkersAttachment(
            tier=tier,
            pool=pool,
            recall=pool.recall if answers else None,
            purge=pool.purge if answers else None,
        )


def runner_of(attachment: WorkersAttachment, services: Table[ServiceTable]) -> Runner:
    """Return what has the workers follow the table."""

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await attachment.pool.run(services, task_status=task_status)

    return run
