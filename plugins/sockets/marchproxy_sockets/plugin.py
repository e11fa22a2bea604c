"""The hooks of the sockets tier. Imports nothing that can fail; the work is done in worker processes."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import AttachContext, Path, ProbeReport, Runner, ServiceTable, TierStats, Verdict
from marchproxy_core.workers import WorkersAttachment, attached_workers, report_of, runner_of

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.services import Service
    from marchproxy_core.table import Table

ORDER = 700
_NAME = "sockets"
_ENTRY = "marchproxy_core.relay.worker:main"


@hookimpl
def probe(host: HostFacts, settings: Settings) -> ProbeReport:
    """Say that it runs on any Linux of this decade, without any right."""
    del settings
    return report_of(host, ORDER)


@hookimpl
def classify(service: Service, report: ProbeReport) -> Verdict:
    """Take every service that asks for nothing above TCP and UDP."""
    del report
    asks = "; ".join(service.slow_path_reasons)
    if asks:
        return Verdict(accept=False, path=Path.SLOW, reason=f"{asks}: needs a tier that reads HTTP or TLS")
    return Verdict(accept=True, path=Path.FAST, reason=f"{service.protocol} bytes are relayed as they are")


@hookimpl
def attach(context: AttachContext) -> AbstractAsyncContextManager[WorkersAttachment]:
    """Start the worker processes."""
    return attached_workers(_NAME, _ENTRY, context)


@hookimpl
def forward(attachment: WorkersAttachment, services: Table[ServiceTable]) -> Runner:
    """Have the workers follow the table."""
    return runner_of(attachment, services)


@hookimpl
def stats(attachment: WorkersAttachment) -> TierStats:
    """Read the shared counters."""
    return attachment.pool.stats()
