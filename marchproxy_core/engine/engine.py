"""The engine: holds the plan, the listeners and one supervisor per tier, and moves services between tiers.

Everything that decides is elsewhere and pure (planner, assigning, pauses); here its answers are put into
effect. A change of plan is published to every tier's table in one step without a checkpoint, so a fall-back
takes as long as the tiers need to read their tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import attrs
import structlog
import trio
from pyroute2 import NetlinkError

from marchproxy_core.config import Config
from marchproxy_core.door import DoorAction, DoorChange, KnownRule
from marchproxy_core.engine.asking import ask_tier, ask_tiers, is_unsure, probe_tier
from marchproxy_core.engine.assigning import tables
from marchproxy_core.engine.crew import Crew
from marchproxy_core.engine.door import FrontDoor
from marchproxy_core.engine.given_up import GivenUp
from marchproxy_core.engine.netwatch import watch_interfaces
from marchproxy_core.engine.pauses import Pauses
from marchproxy_core.engine.questioning import purge, recall
from marchproxy_core.engine.supervisor import Supervisor
from marchproxy_core.engine.watchdog import Watchdog
from marchproxy_core.errors import DoorError, ListenError
from marchproxy_core.host import HostFacts
from marchproxy_core.listeners import ListenerSet
from marchproxy_core.model import (
    AttachContext,
    BackendObservation,
    BackendView,
    Carries,
    Plan,
    ProbeReport,
    TierStats,
)
from marchproxy_core.planner import TierFacts, check_start, make_plan
from marchproxy_core.plugins import Tiers
from marchproxy_core.services import Service

if TYPE_CHECKING:
    from marchproxy_core.questions import Purge, Purged, Recall, Recalled

log = structlog.get_logger()

_DRAIN_LOOK_S = 0.1
_DRAIN_GRACE_S = 0.5
"""What tiers and their workers have to hear of a drain and to take what waits in their accept queues, before a service
without connections is taken to have none. That a tier has taken a table says nothing about its workers."""


def unchecked(service: Service) -> tuple[BackendView, ...]:
    """Show a service's backends as configured, with nothing known of their health."""
    return tuple(BackendView(backend=backend) for backend in service.backends)


@final
@attrs.define(eq=False, kw_only=True)
class Engine:
    """The data plane of one daemon, from its first plan to the end of its drain."""

    config: Config
    tiers: Tiers
    host: HostFacts
    look_again: Callable[[HostFacts], HostFacts] = lambda host: host
    """Gathers the facts anew, given the old ones; blocks, so it is called in a thread."""
    listeners: ListenerSet
    """Owned by the engine from here on: closed at the end of :meth:`run`."""
    backends: Callable[[Service], tuple[BackendView, ...]] = unchecked
    observe: Callable[[BackendObservation], None] = lambda observation: None
    adopted: Callable[[Config], None] = lambda config: None
    """Called with each configuration that a reload puts into effect, before any tier hears of it."""
    keep_attached: bool = False
    """Whether tiers that can go on without the daemon do, when it ends by a drain."""
    watchdog: Watchdog = attrs.field(factory=Watchdog)
    plan: Plan = attrs.field(default=Plan(tiers=(), services=()))
    ready: bool = False
    """Whether each service is carried, as its tiers say, and no drain has begun."""
    moves: Counter[tuple[str, str, str]] = attrs.field(factory=Counter)
    """How often a service moved, by tier left, tier taken and reason."""
    door: FrontDoor = attrs.field(default=attrs.Factory(lambda self: FrontDoor(self.config), takes_self=True))
    _facts: tuple[TierFacts, ...] = ()
    _possible: Plan = attrs.field(default=Plan(tiers=(), services=()))
    _crew: Crew = attrs.field(factory=Crew)
    _planning: bool = False
    """Whether plans are put into effect: from the first one on until a drain begins."""
    _leaving: tuple[Service, ...] = ()
    _given_up: GivenUp = attrs.field(factory=GivenUp)
    _drain: trio.Event = attrs.field(factory=trio.Event)
    _nursery: trio.Nursery | None = None
    _applying: trio.Lock = attrs.field(factory=trio.Lock)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Carry every service until :meth:`drain` was called and connections have ended, then return.

        ``started()`` comes when each service is carried. Cancelling ends it at once, connections and all.

        Raises:
            StartRefused: A required tier cannot run, or a service has no tier.
            ListenError: An address cannot be opened.
        """
        self._facts = await ask_tiers(self.tiers, self.host, self.config.settings, self.config.services)
        self._possible = make_plan(self._facts, self.config.services, self.config.settings)
        check_start(self._possible, self.config.settings)
        self.listeners.open(self.config.services)
        try:
            with self.watchdog.watching():
                await self._carry(task_status)
        finally:
            self._nursery = None
            self.ready = self._planning = False
            self.listeners.close()

    async def _carry(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.watchdog.beat)
            await self._start(nursery)
            nursery.start_soon(self._ask_again, nursery)
            task_status.started()
            await self._drain.wait()
            await self._wait_for_connections(self._leaving)
            nursery.cancel_scope.cancel()

    def drain(self) -> None:
        """Take nothing new; :meth:`run` returns when connections have ended, or after ``DRAIN_TIMEOUT``."""
        if self._drain.is_set():
            return
        log.info("drain.started", timeout_s=self.config.settings.drain_timeout)
        self.ready = self._planning = False
        self._leaving += self.config.services
        self._drain.set()
        # Told first, closed then, in one step: clients that wait in an accept queue are the tiers' to serve, which
        # have duplicates of these sockets. Kept open longer, ours would queue new clients that nobody serves.
        self._publish()
        self.listeners.close()

    async def apply(self, config: Config) -> None:
        """Put a new configuration into effect: services that stay keep their tiers, listeners and connections.

        Returns when the tiers do what it says, but for those that are still being attached. Services that go are
        drained for up to ``DRAIN_TIMEOUT``, in the background.

        Raises:
            StartRefused: A required tier cannot run, or a service would have no tier; nothing was changed.
            ListenError: A new address cannot be opened, or the engine is not running; nothing was changed.
        """
        async with self._applying:
            await self._look()
            facts = await ask_tiers(self.tiers, self.host, config.settings, config.services)
            possible = make_plan(facts, config.services, config.settings)
            check_start(possible, config.settings)
            if self._nursery is None or not self.ready:
                raise ListenError("the daemon is starting or draining - fix: reload again when it is ready")
            self.listeners.open(config.services)
            stay = {service.name for service in config.services}
            gone = tuple(service for service in self.config.services if service.name not in stay)
            self._leaving = tuple(one for one in self._leaving if one.name not in stay) + gone
            self._given_up.follow(self._possible, possible, {one.tier for one in self._crew})
            self.config, self._facts, self._possible = config, facts, possible
            self.door.adopt(config)
            self._tell_shut_off()
            self.adopted(config)
            self._carry_on(self._nursery, "reloaded")
            self._nursery.start_soon(self._see_off, gone)
            self._nursery.start_soon(self._let_go)
            self._nursery.start_soon(self._ask_again, self._nursery)
            await self._crew.caught_up()

    def change_door(self, change: DoorChange) -> KnownRule:
        """Add or remove a rule at the front door; tiers hear of it at once.

        Raises:
            DoorError: It cannot be; nothing was changed.
        """
        if self._nursery is None or not self.ready:
            raise DoorError("the daemon is starting or draining - fix: try again when it is ready")
        known = self.door.change(change, trio.current_time())
        rule = known.rule
        told = {"prefix": str(rule.prefix), "door": rule.door.value, "service": rule.service}
        if change.action is DoorAction.REMOVE:
            log.info("door.rule_removed", **told)
        else:
            log.info("door.rule_added", **told, lasts_s=change.lasts_s)
            if known.ends_at is not None:
                self._nursery.start_soon(self._lapse, known, known.ends_at)
        self._publish()
        return known

    async def _lapse(self, known: KnownRule, ends_at: float) -> None:
        await trio.sleep_until(ends_at)
        if self.door.lapse(known):
            rule = known.rule
            log.info("door.rule_lapsed", prefix=str(rule.prefix), door=rule.door.value, service=rule.service)
            self._tell_shut_off()
            self._publish()

    def _tell_shut_off(self) -> None:
        if (shut_off := self.door.shut_off()) is not None:
            log.warning("door.backend_shut_off", backend=str(shut_off))

    def refresh_backends(self) -> None:
        """Tell the tiers how the backends are now."""
        if self._planning:
            self._publish()

    @property
    def carries_packets(self) -> bool:
        """Whether a tier that moves packets is needed, be it attached now or not."""
        return Carries.PACKETS in self._carries().values()

    def stats(self) -> dict[str, TierStats]:
        """Return the counters by tier, summed over all attachments, as of the last pulse or :meth:`refresh_stats`."""
        return self._crew.stats(service.name for service in (*self.config.services, *self._leaving))

    async def refresh_stats(self) -> None:
        """Read every tier's counters anew."""
        await self._crew.refresh_stats()

    async def recall(self, question: Recall) -> Recalled | None:
        """Ask the tiers what became of a request; None where none that is attached remembers any."""
        return await recall(self._crew.attachments(), question)

    async def purge(self, question: Purge) -> Purged:
        """Have the tiers forget what is cached."""
        return await purge(self._crew.attachments(), question)

    async def _start(self, nursery: trio.Nursery) -> None:
        await nursery.start(watch_interfaces, self._crew.lose_interface)
        for tier in self._carries():
            self._crew.add(self._supervisor(tier))
        self._publish()
        for supervisor in self._crew:
            nursery.start_soon(supervisor.run)
        await self._crew.settled()
        if self._drain.is_set():
            return
        self._planning = True
        self._replan("started")
        check_start(self.plan, self.config.settings)
        await self._crew.caught_up()
        self.ready = self._planning

    def _carry_on(self, nursery: trio.Nursery, reason: str) -> None:
        """Put new facts or a new configuration into effect; tiers that were not needed before are attached."""
        self._crew.follow(self._context())
        for tier in self._carries():
            if tier not in self._crew:
                self._crew.add(self._supervisor(tier))
                nursery.start_soon(self._crew[tier].run)
        self._replan(reason)

    async def _ask_again(self, nursery: trio.Nursery) -> None:
        """Ask the tiers that could not tell what they can do, after growing pauses, until each has told."""
        pauses, facts = Pauses(), self._facts
        while unsure := [one.name for one in facts if is_unsure(one, self.config.settings)]:
            await trio.sleep(pauses.failed(0.0))
            await self._look()
            config = self.config
            told = {
                name: await ask_tier(self.tiers, name, self.host, config.settings, config.services)
                for name in unsure
            }
            if self._facts is not facts or not self._planning:
                return  # a reload has asked anew and looks after what it heard, or a drain has begun
            facts = self._facts = tuple(told.get(one.name, one) for one in facts)
            self._possible = make_plan(facts, config.services, config.settings)
            for one in told.values():
                if not is_unsure(one, config.settings):
                    outcome, reason = (
                        (one.report.outcome, one.report.reason) if one.report else ("broken", one.fault)
                    )
                    log.info("tier.probed_again", tier=one.name, outcome=str(outcome), reason=str(reason))
            self._carry_on(nursery, "probed_again")

    def _supervisor(self, tier: str) -> Supervisor:
        async def probe(name: str) -> ProbeReport:
            await self._look()
            return await probe_tier(self.tiers, name, self.host, self.config.settings)

        return Supervisor(
            tier=tier,
            tiers=self.tiers,
            context=self._context(),
            probe=probe,
            changed=self._replan,
            needed_now=self._is_needed,
            detached=self._crew.detached,
        )

    async def _look(self) -> None:
        """Have fresh facts: interfaces come and go while the daemon runs, even while they are listed."""
        try:
            self.host = await trio.to_thread.run_sync(self.look_again, self.host)
        except (OSError, NetlinkError) as error:
            log.warning("host.look_failed", error=str(error))

    def _context(self) -> AttachContext:
        return AttachContext(
            settings=self.config.settings,
            host=self.host,
            observe=self.observe,
            stays=lambda: self.keep_attached and self._drain.is_set(),
        )

    def _carries(self) -> dict[str, Carries]:
        needed = {tier for plan in self._possible.services for tier in plan.chain}
        return {f.name: f.report.carries for f in self._facts if f.name in needed and f.report}

    def _is_needed(self, tier: str) -> bool:
        possible = {plan.service.name for plan in self._possible.services if tier in plan.chain}
        return any(plan.chosen is None for plan in self.plan.services if plan.service.name in possible)

    def _replan(self, reason: str) -> None:
        """Make the plan that fits the tiers that are up, and put it into effect. Sync, so nothing comes between."""
        if not self._planning:  # while starting, the first plan waits until every tier had its try
            return
        facts = tuple(attrs.evolve(one, down=self._crew.down(one.name)) for one in self._facts)
        before = {plan.service.name: plan.chosen for plan in self.plan.services}
        self.plan = make_plan(facts, self.config.services, self.config.settings)
        self._publish()
        for plan in self.plan.services:
            left, taken = before.get(plan.service.name), plan.chosen
            if left == taken:
                continue
            if left is not None:
                self.moves[left, taken or "none", reason] += 1
            say = log.info if taken else log.error
            say("service.moved", service=plan.service.name, tier=taken, left=left, reason=reason)

    def _publish(self) -> None:
        self._crew.publish(
            tables(
                possible=self._possible,
                actual=self.plan if self.plan.services else self._nobody_yet(),
                carries=self._carries(),
                backends=self.backends,
                listeners=self.listeners.of,
                settings=self.config.settings,
                door=self.door.rules,
                draining=self._leaving,
                attached=[supervisor.tier for supervisor in self._crew],
                given_up=self._given_up.by_tier,
            )
        )

    def _nobody_yet(self) -> Plan:
        return attrs.evolve(
            self._possible, services=tuple(attrs.evolve(plan, chain=()) for plan in self._possible.services)
        )

    async def _see_off(self, services: tuple[Service, ...]) -> None:
        """Let the connections of services that went away end; then forget them, and tiers that nobody needs."""
        await self._wait_for_connections(services)
        self._leaving = tuple(one for one in self._leaving if one not in services)
        self._publish()
        self._crew.stop_all_but((*self._carries(), *self._given_up.by_tier))

    async def _let_go(self) -> None:
        """Forget what was given up once nothing of it is left, and tiers that nobody needs any more."""
        await trio.sleep(_DRAIN_GRACE_S)
        while self._given_up.by_tier and self._planning:
            await self.refresh_stats()
            self._given_up.let_go(self.stats())
            self._publish()
            await trio.sleep(_DRAIN_LOOK_S)
        self._crew.stop_all_but((*self._carries(), *self._given_up.by_tier))

    async def _wait_for_connections(self, services: tuple[Service, ...]) -> None:
        """Return when none of these services, but for those that a reload brought back, has a connection."""

        def names() -> set[str]:
            return {service.name for service in services if service in self._leaving}

        timeout_s = self.config.settings.drain_timeout
        grace_s = min(_DRAIN_GRACE_S, timeout_s)
        await trio.sleep(grace_s)
        await self.refresh_stats()
        with trio.move_on_after(timeout_s - grace_s):
            while self._busy(names()):
                await trio.sleep(_DRAIN_LOOK_S)
                await self.refresh_stats()
        if cut_off := self._busy(names()):
            log.warning("drain.cut_off", services=sorted(cut_off))
        elif names():
            log.info("drain.finished", services=sorted(names()))

    def _busy(self, names: set[str]) -> set[str]:
        """Return those of the services that have connections that would end with us, as the last snapshots have it."""
        alone = self._crew.going_on_alone()
        ending = [tier for name, tier in self.stats().items() if name not in alone]
        found = (item for tier in ending for item in tier.services.items())
        return {name for name, stats in found if name in names and stats.connections_active}
