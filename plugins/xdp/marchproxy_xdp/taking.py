"""Taking the program's seat, and what goes on while it is held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from marchproxy_core.config import Enable
from marchproxy_core.packet.neighbours import keep_known
from marchproxy_core.packet.running import run_hook
from marchproxy_xdp.interfaces import look_at
from marchproxy_xdp.judging import build_for, mode_for, needs_of
from marchproxy_xdp.probing import candidates, report
from marchproxy_xdp.programs import Programs
from marchproxy_xdp.seat import XdpSeat

if TYPE_CHECKING:
    from marchproxy_core.model import AttachContext, Runner, ServiceTable
    from marchproxy_core.packet.running import PacketAttachment
    from marchproxy_core.packet.shared import PacketEngine
    from marchproxy_core.table import Table

_INTERVAL_S = 1.0


@asynccontextmanager
async def open_seat(engine: PacketEngine, context: AttachContext) -> AsyncIterator[XdpSeat]:
    """Load the builds that this host's interfaces need, and yield the seat.

    Raises:
        TierUnavailable: bcc or the kernel's headers are missing.
        ProgramRefused, BpfError: The kernel does not take the program.
    """
    with Programs(engine) as programs:
        seat = await trio.to_thread.run_sync(_seat, engine, context, programs)
        try:
            yield seat
        finally:
            seat.let_go()


def _seat(engine: PacketEngine, context: AttachContext, programs: Programs) -> XdpSeat:
    places = look_at(context.settings.xdp_interface or candidates(context.host))
    mode = mode_for(context.settings.xdp_mode, places)
    for place in places:
        if not needs_of(place, mode):
            programs.get(build_for(place, mode, context.host.kernel))
    return XdpSeat(
        engine,
        programs,
        mode=mode,
        kernel=context.host.kernel,
        forced=_is_forced(context),
    )


def _is_forced(context: AttachContext) -> bool:
    """Whether somebody wants it also where a lower tier does better: says so, or attaches where it is so everywhere."""
    settings = context.settings
    told = settings.xdp_mode is not None or settings.enable.get("xdp") is Enable.TRUE
    return told or bool(report(context.host, settings).loses)


def run(attachment: PacketAttachment, services: Table[ServiceTable]) -> Runner:
    """Return what carries the services, and keeps the neighbours known that their packets go to."""
    forward = run_hook(attachment, services)
    control = attachment.engine.control

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(forward)
            task_status.started()
            while True:
                await trio.to_thread.run_sync(lambda: keep_known(control.network))
                await trio.sleep(_INTERVAL_S)

    return run
