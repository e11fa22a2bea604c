"""Follows the table of services; what is carried for one of them is in ``carried``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from marchproxy_core.model import (
    AttachContext,
    Attachment,
    BackendObservation,
    Runner,
    ServiceTable,
    TierStats,
)
from my_tier.carried import Carried, Counters

if TYPE_CHECKING:
    from marchproxy_core.table import Table


@attrs.define(eq=False, kw_only=True)
class MyAttachment(Attachment):
    """What this tier holds while attached."""

    observe: Callable[[BackendObservation], None]
    counters: dict[str, Counters] = attrs.field(factory=dict)
    """By service name; kept until the tier detaches, so that no counter ever goes back."""

    def stats(self) -> TierStats:
        """Return the counters; called from other threads."""
        counters = self.counters.copy()
        return TierStats(services={name: counted.snapshot() for name, counted in counters.items()})


@asynccontextmanager
async def attached(context: AttachContext) -> AsyncIterator[MyAttachment]:
    """Hold what the tier needs for as long as the block runs: sockets, processes, programs, each in its ``with``."""
    await trio.lowlevel.checkpoint()
    yield MyAttachment(tier="my-tier", observe=context.observe)


def runner(attachment: MyAttachment, services: Table[ServiceTable]) -> Runner:
    """Return what carries the services of the table until it is cancelled."""
    carried: dict[str, Carried] = {}

    def follow(table: ServiceTable, nursery: trio.Nursery) -> None:
        for name in carried.keys() - table.assignments.keys():
            carried.pop(name).cut()
        for name, assignment in table.assignments.items():
            if name not in carried:
                counters = attachment.counters.setdefault(name, Counters())
                carried[name] = Carried(counters, attachment.observe, nursery)
            carried[name].change(assignment, table.settings)

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            tables = services.changes()
            follow(await anext(tables), nursery)
            task_status.started()  # last: from here on clients are served
            async for table in tables:
                follow(table, nursery)

    return run
