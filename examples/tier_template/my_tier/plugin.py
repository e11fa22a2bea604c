"""The five hooks. They decide; what they return does the work, and is imported only then.

This module is imported whenever MarchProxy looks for tiers, so nothing in it may fail or take long.
"""

from __future__ import annotations

import resource
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import (
    AttachContext,
    Carries,
    Path,
    ProbeReport,
    Requirement,
    Runner,
    ServiceTable,
    TierStats,
    Verdict,
)
from marchproxy_core.services import Protocol, ProxyProtocol, Service

if TYPE_CHECKING:
    from marchproxy_core.table import Table
    from my_tier.relay import MyAttachment

ORDER = 650  # below `application` (600), above `sockets` (700)
FEWEST_DESCRIPTORS = 256


@hookimpl
def probe() -> ProbeReport:
    """Say what this tier needs, and whether this host has it."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = allowed == resource.RLIM_INFINITY or allowed >= FEWEST_DESCRIPTORS
    descriptors = Requirement(
        need=f"{FEWEST_DESCRIPTORS} file descriptors (each connection takes two)",
        have=f"{allowed}",
        fix="" if enough else f"ulimit -n {FEWEST_DESCRIPTORS}, or LimitNOFILE= in the unit",
        met=enough,
        source="getrlimit(2)",
    )
    return ProbeReport(order=ORDER, carries=Carries.CONNECTIONS, requirements=(descriptors,))


@hookimpl
def classify(service: Service) -> Verdict:
    """Accept TCP services that ask for nothing but to be relayed."""
    path = Path.SLOW if service.slow_path_reasons else Path.FAST
    why_not = list(service.slow_path_reasons)
    if service.protocol is not Protocol.TCP:
        why_not.append("it relays TCP only")
    if service.proxy_protocol != ProxyProtocol():
        why_not.append("it does not know the PROXY protocol")
    return Verdict(accept=not why_not, path=path, reason="; ".join(why_not) or "plain TCP")


@hookimpl
def attach(context: AttachContext) -> AbstractAsyncContextManager[MyAttachment]:
    """Return the context manager that takes what the tier holds while it runs."""
    from my_tier.relay import attached

    return attached(context)


@hookimpl
def forward(attachment: MyAttachment, services: Table[ServiceTable]) -> Runner:
    """Return what moves the bytes."""
    from my_tier.relay import runner

    return runner(attachment, services)


@hookimpl
def stats(attachment: MyAttachment) -> TierStats:
    """Return the counters; called in a thread, at least once a second."""
    return attachment.stats()
