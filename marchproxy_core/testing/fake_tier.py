"""A tier for tests: the five hooks with answers of your choice, and a real relay behind them.

Registered without an installed distribution: ``Tiers.of({"fake": FakeTier()})``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import (
    AttachContext,
    Attachment,
    BackendObservation,
    Carries,
    Path,
    ProbeReport,
    Requirement,
    Runner,
    ServiceTable,
    TierStats,
    Verdict,
)
from marchproxy_core.services import Service
from marchproxy_core.testing.fake_relay import Counters, Relay

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.table import Table


def decline_slow_path(service: Service) -> str:
    """Decline what needs a full-feature tier, as every L4 tier does."""
    return "; ".join(service.slow_path_reasons)


@attrs.define(eq=False, kw_only=True)
class FakeAttachment(Attachment):
    """What a fake tier holds while attached."""

    context: AttachContext
    counters: dict[str, Counters] = attrs.field(factory=dict)


@attrs.define(eq=False, kw_only=True, slots=False)
class FakeTier:
    """A tier whose answers are its attributes; change them at any time."""

    name: str = "fake"
    order: int = 500
    carries: Carries = Carries.CONNECTIONS
    requirements: tuple[Requirement, ...] = ()
    loses: str = ""
    declines: Callable[[Service], str] = decline_slow_path
    """Why it declines a service; empty to accept."""
    interfaces: frozenset[str] = frozenset()
    moves_bytes: bool = True
    """Whether it relays traffic; a tier that does not just follows its table."""
    keeps_door: bool = True
    make_relay: Callable[[dict[str, Counters], Callable[[BackendObservation], None]], Relay] = Relay
    probes: int = attrs.field(default=0, init=False)
    lives: int = attrs.field(default=0, init=False)
    """How often it was attached."""
    attached: int = attrs.field(default=0, init=False)
    """How many attachments there are now."""
    table: ServiceTable | None = attrs.field(default=None, init=False)
    """The last table it saw."""

    def report(self) -> ProbeReport:
        """Return what ``probe`` answers."""
        return ProbeReport(
            order=self.order,
            carries=self.carries,
            requirements=self.requirements,
            loses=self.loses,
            keeps_door=self.keeps_door,
        )

    @hookimpl
    def probe(self, host: HostFacts, settings: Settings) -> ProbeReport:
        """Answer with the attributes."""
        del host, settings
        self.probes += 1
        return self.report()

    @hookimpl
    def classify(self, service: Service, report: ProbeReport) -> Verdict:
        """Accept unless ``declines`` gives a reason."""
        del report
        path = Path.SLOW if service.slow_path_reasons else Path.FAST
        why_not = self.declines(service)
        return Verdict(accept=not why_not, path=path, reason=why_not or "the fake relays it")

    @hookimpl
    def attach(self, context: AttachContext) -> AbstractAsyncContextManager[FakeAttachment]:
        """Count the attachment for as long as it is held."""
        return self._attached(context)

    @asynccontextmanager
    async def _attached(self, context: AttachContext) -> AsyncIterator[FakeAttachment]:
        self.lives += 1
        self.attached += 1
        try:
            await trio.lowlevel.checkpoint()
            yield FakeAttachment(tier=self.name, interfaces=self.interfaces, context=context)
        finally:
            self.attached -= 1

    @hookimpl
    def forward(self, attachment: FakeAttachment, services: Table[ServiceTable]) -> Runner:
        """Relay, or just follow the table."""

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            async with trio.open_nursery() as nursery:
                if self.moves_bytes:
                    relay = self.make_relay(attachment.counters, attachment.context.observe)
                    await nursery.start(relay.run, services)
                nursery.start_soon(self._follow, services)
                task_status.started()

        return run

    async def _follow(self, services: Table[ServiceTable]) -> None:
        async for table in services.changes():
            self.table = table

    @hookimpl
    def stats(self, attachment: FakeAttachment) -> TierStats:
        """Return what the relay counted."""
        return TierStats(
            services={name: counters.snapshot() for name, counters in list(attachment.counters.items())}
        )
