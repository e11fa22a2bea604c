"""A tier that fails on command at each stage, and runs a recorded life otherwise."""

from __future__ import annotations

from contextlib import asynccontextmanager

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
