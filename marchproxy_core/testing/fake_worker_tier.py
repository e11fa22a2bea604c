"""A fake tier whose relay runs in worker processes: to test what is to hold for such tiers too.

The part in the worker is :func:`main`; the other part stays in the control process, as in a real tier.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from marchproxy_core.door import Rule
from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import (
    Assignment,
    AttachContext,
    BackendObservation,
    Listener,
    ServiceTable,
    TierStats,
)
from marchproxy_core.table import Table
from marchproxy_core.testing.fake_relay import Counters, Relay
from marchproxy_core.testing.fake_tier import FakeAttachment, FakeTier
from marchproxy_core.workers import WorkerPool, ledger, open_worker_pool
from marchproxy_core.workers.cells import ServiceCells
from marchproxy_core.workers.child import Worker
from marchproxy_core.workers.messages import Doors, Lend, Work

if TYPE_CHECKING:
    from marchproxy_core.model import Runner

_ENTRY = "marchproxy_core.testing.fake_worker_tier:main"
_BEAT_S = 0.01


@attrs.define(eq=False, kw_only=True)
class FakeWorkerAttachment(FakeAttachment):
    """What it holds while attached."""

    pool: WorkerPool


@attrs.define(eq=False, kw_only=True, slots=False)
class FakeWorkerTier(FakeTier):
    """A fake tier that relays in ``WORKER_THREADS`` processes."""

    name: str = "fake-workers"

    @asynccontextmanager
    async def _attached(self, context: AttachContext) -> AsyncIterator[FakeWorkerAttachment]:
        async with (
            super()._attached(context),
            open_worker_pool(tier=self.name, entry=_ENTRY, context=context) as pool,
        ):
            yield FakeWorkerAttachment(tier=self.name, context=context, pool=pool)

    @hookimpl
    def forward(self, attachment: FakeAttachment, services: Table[ServiceTable]) -> Runner:
        """Have the workers follow the table."""
        assert isinstance(attachment, FakeWorkerAttachment)
        pool = attachment.pool

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await pool.run(services, task_status=task_status)

        return run

    @hookimpl
    def stats(self, attachment: FakeAttachment) -> TierStats:
        """Return what all workers counted."""
        assert isinstance(attachment, FakeWorkerAttachment)
        return attachment.pool.stats()


def main(worker: Worker) -> None:
    """Be a worker process."""

    def observe(one: BackendObservation) -> None:
        worker.observe(one.service, one.backend, error=one.error)

    trio.run(_Work(worker, Relay({}, observe)).run)


@attrs.define(eq=False)
class _Work:
    worker: Worker
    relay: Relay
    table: Table[ServiceTable] = attrs.field(factory=lambda: Table(ServiceTable()))
    lent: dict[int, Listener] = attrs.field(factory=dict)
    rules: tuple[Rule, ...] = ()
    cells: dict[str, ServiceCells] = attrs.field(factory=dict)

    async def run(self) -> None:
        """Relay until the control process is gone."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.relay.run, self.table)
            nursery.start_soon(self._beat)
            await self._obey()
            nursery.cancel_scope.cancel()

    async def _obey(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.worker.channel.fileno())
            try:
                messages = self.worker.channel.receive()
            except EOFError:
                return
            for message, descriptor in messages:
                match message:
                    case Lend(number=number, endpoint=endpoint):
                        self.lent[number] = Listener(endpoint, (socket.socket(fileno=descriptor),))
                    case Doors(rules=rules):
                        self.rules = rules
                    case Work():
                        self._change(message)

    def _change(self, work: Work) -> None:
        self.cells = {one.service.name: one.cells for one in work.services}
        for name in self.relay.counters.keys() - self.cells.keys():
            del self.relay.counters[name]
        self.table.publish(
            ServiceTable(
                {
                    one.service.name: Assignment(
                        service=one.service,
                        role=one.role,
                        backends=one.backends,
                        listeners=tuple(self.lent[number] for number in one.listeners),
                    )
                    for one in work.services
                },
                work.settings,
                self.rules,
            )
        )
        named = {number for one in work.services for number in one.listeners}
        for number in self.lent.keys() - named:
            for sock in self.lent.pop(number).sockets:
                sock.close()
        self.worker.applied(work.version)

    async def _beat(self) -> None:
        """Show that it is alive, and what it counted."""
        while True:
            self.worker.beat()
            for name, cells in self.cells.items():
                self._show(cells.first, self.relay.counters.get(name) or Counters())
            await trio.sleep(_BEAT_S)

    def _show(self, first: int, counters: Counters) -> None:
        cells = self.worker.ledger.mine
        cells[first + ledger.OPENED] = counters.opened
        cells[first + ledger.ACTIVE] = counters.active
        cells[first + ledger.BYTES_IN] = counters.bytes_in
        cells[first + ledger.BYTES_OUT] = counters.bytes_out
        cells[first + ledger.PACKETS_IN] = counters.packets_in
        cells[first + ledger.PACKETS_OUT] = counters.packets_out
        for reason, place in ledger.DROPS.items():
            cells[first + place] = counters.drops.get(reason.value, 0)
