"""The xdp tier's hooks. The work is done by the packet engine (marchproxy_core/packet) and the seat (``seat.py``)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from marchproxy_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.model import (
        AttachContext,
        ProbeReport,
        Runner,
        ServiceTable,
        TierStats,
        Verdict,
    )
    from marchproxy_core.packet.running import PacketAttachment
    from marchproxy_core.services import Service
    from marchproxy_core.table import Table

_NAME = "xdp"
_PATIENCE_S = 0.5
"""For neighbours that answer; a backend that is away must not keep the others waiting."""


@hookimpl
def probe(host: HostFacts, settings: Settings) -> ProbeReport:
    """Say whether drivers of this host run XDP programs, and what that would cost."""
    from marchproxy_xdp.probing import report

    return report(host, settings)


@hookimpl
def classify(service: Service, report: ProbeReport) -> Verdict:
    """Take services of which packets come in by an interface and leave by one, as they are."""
    del report
    from marchproxy_core.packet.classifying import verdict

    return verdict(service, "in the driver")


@hookimpl
def attach(context: AttachContext) -> AbstractAsyncContextManager[PacketAttachment]:
    """Open the tables and load the program; it gets on interfaces with the first table of services."""
    return _attached(context)


@asynccontextmanager
async def _attached(context: AttachContext) -> AsyncIterator[PacketAttachment]:
    from marchproxy_core.packet.neighbours import Acquaintances
    from marchproxy_core.packet.reasons import Hook
    from marchproxy_core.packet.running import PacketAttachment
    from marchproxy_core.packet.shared import shared_engine
    from marchproxy_xdp.taking import open_seat

    async with (
        shared_engine(context.settings, context.stays) as engine,
        open_seat(engine, context) as seat,
    ):
        yield PacketAttachment(
            tier=_NAME,
            interfaces=seat.interfaces,
            engine=engine,
            hook=Hook.XDP,
            seat=seat,
            only=context.settings.xdp_interface,
            settle=Acquaintances(_PATIENCE_S).meet,
        )


@hookimpl
def forward(attachment: PacketAttachment, services: Table[ServiceTable]) -> Runner:
    """Have the tables and the interfaces follow the table of services, and neighbours stay known."""
    from marchproxy_xdp.taking import run

    return run(attachment, services)


@hookimpl
def stats(attachment: PacketAttachment) -> TierStats:
    """Read the engine's counters, if the program still is where it should be."""
    return attachment.stats()
