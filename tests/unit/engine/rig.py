"""A tier that fails on command at each stage, and runs a recorded life otherwise."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import trio

from marchproxy_core.errors import TierUnavailable
from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import Attachment, Carries, Path, ProbeReport, ServiceStats, TierStats, Verdict


class FailingTier:
    """`fails` is what goes wrong, emptied to heal it; `held` counts the resources it holds."""

    def __init__(self, fails="", interfaces=frozenset()):
        self.fails = fails
        self.interfaces = interfaces
        self.held = 0
        self.lives = 0
        self.break_now = trio.Event()

    @hookimpl
    def probe(self, host, settings):
        return ProbeReport(order=500, carries=Carries.CONNECTIONS, requirements=())

    @hookimpl
    def classify(self, service, report):
        return Verdict(accept=True, path=Path.FAST, reason="fake")

    @hookimpl
    def attach(self, context):
        return self._attached()

    @asynccontextmanager
    async def _attached(self):
        self.lives += 1
        self.held += 1
        try:
            if self.fails == "attach":
                raise ValueError("in attach")
            if self.fails == "unavailable":
                raise TierUnavailable("a device", "none", "plug one in")
            if self.fails == "attach hangs":
                await trio.sleep_forever()
            async with trio.open_nursery() as nursery:  # as a real tier would; breaks a careless deadline
                nursery.start_soon(trio.sleep_forever)
                yield Attachment(tier="fake", interfaces=self.interfaces)
                nursery.cancel_scope.cancel()
        finally:
            self.held -= 1

    @hookimpl
    def forward(self, attachment, services):
        return self._run

    async def _run(self, *, task_status):
        if self.fails == "before started":
            raise OSError("before started")
        if self.fails == "start hangs":
            await trio.sleep_forever()
        task_status.started()
        await self.break_now.wait()
        if self.fails == "running":
            raise RuntimeError("while running")

    async def read_stats(self, tiers, name, attachment):
        """In place of a thread, which an autojump clock takes for idleness."""
        await trio.lowlevel.checkpoint()
        return tiers.stats(name, attachment)

    @hookimpl
    def stats(self, attachment):
        if self.fails == "stats":
            raise RuntimeError("no pulse")
        return TierStats(services={"web": ServiceStats(connections_opened=self.lives)})


class EchoTier(FailingTier):
    """Really serves: says its name to each client, then sends back what it gets; while `busy` it accepts nobody."""

    def __init__(self, name, order, **more):
        super().__init__(**more)
        self.name = name
        self.order = order
        self.active = 0
        self.busy = False
        self.may_take = trio.Event()
        """Until then it leaves every table with services that it is to accept for."""
        self.may_take.set()

    @hookimpl
    def probe(self, host, settings):
        return ProbeReport(order=self.order, carries=Carries.CONNECTIONS, requirements=())

    @hookimpl
    def stats(self, attachment):
        return TierStats(services={"echo": ServiceStats(connections_active=self.active)})

    @hookimpl
    def forward(self, attachment, services):
        self.services = services
        return self._serve

    async def _serve(self, *, task_status):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, nursery)
            await self._run(task_status=task_status)

    async def _follow(self, nursery):
        accepting = {}
        async for table in self.services.changes():
            wanted = {
                listener: assignment
                for assignment in table.assignments.values()
                if assignment.role.takes_new
                for listener in assignment.listeners
            }
            if wanted:
                await self.may_take.wait()
            for listener in [one for one in accepting if one not in wanted]:
                accepting.pop(listener).cancel()
            for listener in wanted:
                if listener not in accepting:
                    accepting[listener] = await nursery.start(self._accept, listener, nursery)

    async def _accept(self, listener, nursery, *, task_status):
        with listener.sockets[0].dup() as own:
            with trio.CancelScope() as scope:
                task_status.started(scope)
                while True:
                    await trio.lowlevel.wait_readable(own)
                    if self.busy:
                        await trio.sleep_forever()
                    self._take_queued(own, nursery)
            self._take_queued(own, nursery)

    def _take_queued(self, own, nursery):
        """Accept all that wait, without waiting for more."""
        with suppress(BlockingIOError):
            while True:
                client, _ = own.accept()
                client.setblocking(False)
                self.active += 1
                nursery.start_soon(self._echo, trio.SocketStream(trio.socket.from_stdlib_socket(client)))

    async def _echo(self, stream):
        try:
            async with stream:
                await stream.send_all(self.name.encode() + b"\n")
                async for data in stream:
                    await stream.send_all(data)
        finally:
            self.active -= 1
