"""The ebpf tier's hooks. The work is done by the packet engine (marchproxy_core/packet) and the seat (``seat.py``)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import Carries, ProbeReport, Requirement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.model import AttachContext, Runner, ServiceTable, TierStats, Verdict
    from marchproxy_core.packet.running import PacketAttachment
    from marchproxy_core.services import Service
    from marchproxy_core.table import Table

ORDER = 500
_NAME = "ebpf"


@hookimpl
def probe(host: HostFacts, settings: Settings) -> ProbeReport:
    """Say whether this host compiles, loads and keeps BPF programs."""
    from marchproxy_core.bpf import requirements

    return ProbeReport(
        order=ORDER,
        carries=Carries.PACKETS,
        keeps_door=True,
        requirements=(*requirements(host), *_interfaces(host, settings)),
    )


def _interfaces(host: HostFacts, settings: Settings) -> tuple[Requirement, ...]:
    return tuple(
        Requirement(
            need=f"the interface {name} (EBPF_INTERFACE)",
            have="it" if host.interface(name) else "none of that name",
            fix="" if host.interface(name) else "change EBPF_INTERFACE; ip link shows what there is",
            met=host.interface(name) is not None,
        )
        for name in settings.ebpf_interface
    )


@hookimpl
def classify(service: Service, report: ProbeReport) -> Verdict:
    """Take services of which packets come in by an interface and leave by one, as they are."""
    del report
    from marchproxy_core.packet.classifying import verdict

    return verdict(service, "in the kernel")


@hookimpl
def attach(context: AttachContext) -> AbstractAsyncContextManager[PacketAttachment]:
    """Open the tables and load the program; it gets on interfaces with the first table of services."""
    return _attached(context)


@asynccontextmanager
async def _attached(context: AttachContext) -> AsyncIterator[PacketAttachment]:
    import trio

    from marchproxy_core.packet.reasons import Hook
    from marchproxy_core.packet.running import PacketAttachment
    from marchproxy_core.packet.shared import shared_engine
    from marchproxy_ebpf.seat import TCX_KERNEL, TcSeat, load

    async with shared_engine(context.settings, context.stays) as engine:
        with await trio.to_thread.run_sync(load, engine) as program:
            tcx = context.host.kernel >= TCX_KERNEL
            seat = await trio.to_thread.run_sync(lambda: TcSeat(engine, program, tcx=tcx))
            try:
                yield PacketAttachment(
                    tier=_NAME,
                    interfaces=seat.interfaces,
                    engine=engine,
                    hook=Hook.TC,
                    seat=seat,
                    only=context.settings.ebpf_interface,
                )
            finally:
                seat.let_go()


@hookimpl
def forward(attachment: PacketAttachment, services: Table[ServiceTable]) -> Runner:
    """Have the tables and the interfaces follow the table of services."""
    from marchproxy_core.packet.running import run_hook

    return run_hook(attachment, services)


@hookimpl
def stats(attachment: PacketAttachment) -> TierStats:
    """Read the engine's counters, if the program still is where it should be."""
    return attachment.stats()
