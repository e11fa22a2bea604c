"""A tier under test, driven as the engine drives it: through the typed façade, with listeners and a table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import attrs
import trio

from marchproxy_core.config import Settings
from marchproxy_core.host import HostFacts, gather_host_facts
from marchproxy_core.listeners import ListenerSet
from marchproxy_core.model import (
    Assignment,
    AttachContext,
    Attachment,
    BackendObservation,
    BackendView,
    Health,
    Outcome,
    ProbeReport,
    Role,
    ServiceStats,
    ServiceTable,
    TierStats,
    Verdict,
)
from marchproxy_core.plugins import Tiers
from marchproxy_core.table import Table

if TYPE_CHECKING:
    from marchproxy_core.door import Rule
    from marchproxy_core.services import Backend, Service

_NAME = "tested"
_DEADLINE_S = 20.0


class NotApplicable(Exception):
    """A law says nothing about this tier here; the message is the reason."""


class CannotRun(NotApplicable):
    """The tier's probe says that it cannot run on this host: nothing of the kind the tier *chose*."""


@final
@attrs.frozen(kw_only=True, eq=False)
class Subject:
    """A tier under test."""

    tiers: Tiers
    host: HostFacts
    settings: Settings
    report: ProbeReport

    @classmethod
    async def of(cls, plugin: object, settings: Settings) -> Subject:
        """Register the plugin as the core would, and probe it.

        Args:
            plugin: The tier's plugin module, or any object with the five hooks.
            settings: What the operator would have set; ``WORKER_THREADS`` 1 or more.

        Raises:
            AssertionError: The core would refuse the plugin; the message is the row of the tier table.
        """
        tiers = Tiers.of({_NAME: plugin})
        fault = tiers.rows[0].fault
        if fault is not None:
            raise AssertionError(str(fault))
        host = await trio.to_thread.run_sync(gather_host_facts)
        with trio.fail_after(_DEADLINE_S):
            report = await trio.to_thread.run_sync(tiers.probe, _NAME, host, settings, abandon_on_cancel=True)
        return cls(tiers=tiers, host=host, settings=settings, report=report)

    def probe(self, host: HostFacts | None = None) -> ProbeReport:
        """Call ``probe``; blocks."""
        return self.tiers.probe(_NAME, host or self.host, self.settings)

    def classify(self, service: Service) -> Verdict:
        """Call ``classify``."""
        return self.tiers.classify(_NAME, service, self.report)

    def accepted(self, *services: Service) -> tuple[Service, ...]:
        """Return the services that the tier accepts.

        Raises:
            NotApplicable: It declines all of them.
        """
        verdicts = [(service, self.classify(service)) for service in services]
        accepted = tuple(service for service, verdict in verdicts if verdict.accept)
        if not accepted:
            service, verdict = verdicts[0]
            raise NotApplicable(f"the tier declines {_described(service)}: {verdict.reason}")
        return accepted

    @asynccontextmanager
    async def attached(
        self, observe: Callable[[BackendObservation], None] = lambda seen: None
    ) -> AsyncIterator[Attachment]:
        """Attach for as long as the block runs.

        Args:
            observe: What the tier calls with what it saw of a backend.

        Raises:
            CannotRun: The probe says that this host lacks something.
        """
        if self.report.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
            raise CannotRun(f"the tier's probe: {self.report.outcome}: {self.report.reason}")
        context = AttachContext(settings=self.settings, host=self.host, observe=observe)
        async with self.tiers.attach(_NAME, context) as attachment:
            assert isinstance(attachment, Attachment), f"attach yielded {attachment!r}, want an Attachment"
            yield attachment

    @asynccontextmanager
    async def running(self, *services: Service, role: Role = Role.CHOSEN) -> AsyncIterator[Running]:
        """Attach and forward these services for as long as the block runs, then cancel and detach.

        Raises:
            NotApplicable: The tier declines one of the services.
            CannotRun: The probe says that this host lacks something.
        """
        for service in services:
            self.accepted(service)
        listeners = ListenerSet(self.settings.worker_threads)
        try:
            observed: list[BackendObservation] = []
            async with self.attached(observed.append) as attachment, trio.open_nursery() as nursery:
                running = Running(
                    subject=self,
                    listeners=listeners,
                    attachment=attachment,
                    table=Table(ServiceTable(settings=self.settings)),
                    observed=observed,
                )
                for service in services:
                    running.put(service, role=role)
                with trio.fail_after(_DEADLINE_S):
                    await nursery.start(running.forward)
                yield running
                nursery.cancel_scope.cancel()
        finally:
            listeners.close()


@final
@attrs.define(kw_only=True, eq=False)
class Running:
    """A tier that runs; its methods change what it has to carry, as the engine would."""

    subject: Subject
    listeners: ListenerSet
    attachment: Attachment
    table: Table[ServiceTable]
    observed: list[BackendObservation]
    """What the tier told the core of backends."""

    def put(
        self,
        service: Service,
        *,
        role: Role = Role.CHOSEN,
        down: Iterable[Backend] = (),
    ) -> None:
        """Add the service, or change it, and publish the table.

        Args:
            service: As it is to be.
            role: What the tier does for it.
            down: Backends whose health check fails.
        """
        down = tuple(down)
        views = tuple(
            BackendView(backend=backend, health=Health.DOWN if backend in down else Health.UP)
            for backend in service.backends
        )
        self.listeners.open([*self._listening_beside(service), service])
        self._publish(
            service.name,
            Assignment(service=service, role=role, backends=views, listeners=self.listeners.of(service)),
        )

    def drain(self, service: Service) -> None:
        """Let the service go away as a reload does: no listeners, no backends, established connections stay."""
        self._publish(service.name, Assignment(service=service, role=Role.DRAINING, backends=()))
        self.listeners.open(self._listening_beside(service))

    def remove(self, service: Service) -> None:
        """Take the service out of the table, what is established too."""
        self._publish(service.name, None)
        self.listeners.open(self._listening_beside(service))

    def guard(self, *rules: Rule) -> None:
        """Have these rules at the front door, and publish the table."""
        now = self.table.current
        self.table.publish(ServiceTable(now.assignments, now.settings, rules))

    async def stats(self) -> TierStats:
        """Call ``stats`` in a thread, as the engine does."""
        with trio.fail_after(_DEADLINE_S):
            return await trio.to_thread.run_sync(
                self.subject.tiers.stats, _NAME, self.attachment, abandon_on_cancel=True
            )

    async def stats_of(self, service: Service) -> ServiceStats:
        """Return the counters of one service; zeros when the tier has none yet."""
        return (await self.stats()).services.get(service.name, ServiceStats())

    async def forward(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the runner; it must not end by itself."""
        runner = self.subject.tiers.forward(_NAME, self.attachment, self.table)
        await runner(task_status=task_status)
        raise AssertionError("the runner returned; it is to run until it is cancelled")

    def _publish(self, name: str, assignment: Assignment | None) -> None:
        assignments = dict(self.table.current.assignments)
        assignments.pop(name, None)
        if assignment is not None:
            assignments[name] = assignment
        now = self.table.current
        self.table.publish(ServiceTable(assignments, now.settings, now.door))

    def _listening_beside(self, service: Service) -> list[Service]:
        return [
            assignment.service
            for name, assignment in self.table.current.assignments.items()
            if name != service.name and assignment.role is not Role.DRAINING
        ]


def _described(service: Service) -> str:
    asks = ", ".join(service.slow_path_reasons)
    return f"a {service.protocol} service" + (f" with {asks}" if asks else "")
