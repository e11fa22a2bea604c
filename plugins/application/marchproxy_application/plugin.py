"""The hooks of the application tier. Imports nothing that can fail; the work is done in worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import (
    AttachContext,
    Attachment,
    Carries,
    Path,
    ProbeReport,
    Requirement,
    Runner,
    ServiceTable,
    TierStats,
    Verdict,
)
from marchproxy_core.workers import WorkerPool, open_worker_pool

if TYPE_CHECKING:
    import trio

    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.services import Service
    from marchproxy_core.table import Table

ORDER = 600
_NAME = "application"
_ENTRY = "marchproxy_application.worker:main"
_KERNEL = (4, 14, 0)  # smaps_rollup; SO_REUSEPORT, splice and EPOLLRDHUP are older


@attrs.define(eq=False, kw_only=True)
class ApplicationAttachment(Attachment):
    """The worker processes."""

    pool: WorkerPool


@hookimpl
def probe(host: HostFacts, settings: Settings) -> ProbeReport:
    """Say that it runs on any Linux of this decade, without any right."""
    del settings
    return ProbeReport(
        order=ORDER,
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


@hookimpl
def classify(service: Service, report: ProbeReport) -> Verdict:
    """Take every service: what asks for HTTP or TLS is read, and all else relayed as bytes."""
    del report
    asks = "; ".join(service.slow_path_reasons)
    if asks:
        return Verdict(accept=True, path=Path.SLOW, reason=asks)
    return Verdict(accept=True, path=Path.FAST, reason=f"{service.protocol} bytes are relayed as they are")


@hookimpl
def attach(context: AttachContext) -> AbstractAsyncContextManager[ApplicationAttachment]:
    """Start the worker processes."""
    return _attached(context)


@asynccontextmanager
async def _attached(context: AttachContext) -> AsyncIterator[ApplicationAttachment]:
    async with open_worker_pool(tier=_NAME, entry=_ENTRY, context=context) as pool:
        yield ApplicationAttachment(tier=_NAME, pool=pool, recall=pool.recall, purge=pool.purge)


@hookimpl
def forward(attachment: ApplicationAttachment, services: Table[ServiceTable]) -> Runner:
    """Have the workers follow the table."""

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await attachment.pool.run(services, task_status=task_status)

    return run


@hookimpl
def stats(attachment: ApplicationAttachment) -> TierStats:
    """Read the shared counters."""
    return attachment.pool.stats()
