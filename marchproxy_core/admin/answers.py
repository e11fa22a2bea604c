"""What the admin API answers: one frozen class per response, and how each is read from the engine.

The JSON schema at ``/admin/schema`` is made from these classes, and the command line shows them. Pure reading:
nothing here changes the engine.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.admin.traffic import TrafficAnswer, traffic_of
from marchproxy_core.admin.view import ReloadResult
from marchproxy_core.door import Door, DoorAction, RuleOrigin
from marchproxy_core.errors import ConfigProblem
from marchproxy_core.model import Decision, Health, Path, Requirement, TierState, TierStats
from marchproxy_core.services import Protocol
from marchproxy_core.version import version

if TYPE_CHECKING:
    from marchproxy_core.admin.view import EngineView
    from marchproxy_core.door import KnownRule
    from marchproxy_core.model import Plan, ServicePlan, TierRow
    from marchproxy_core.plugins import PluginRow


@attrs.frozen(kw_only=True)
class TierAnswer:
    """One tier: what became of it, and why."""

    name: str
    order: int | None
    state: TierState
    reason: str
    requirements: tuple[Requirement, ...]
    carries: tuple[str, ...]
    """Services it is chosen for."""
    connections_active: int
    distribution: str
    version: str
    fix: str
    """What to do about a broken plugin; empty where nothing is broken."""


@attrs.frozen(kw_only=True)
class AccelerationAnswer:
    """``GET /admin/acceleration``."""

    tiers: tuple[TierAnswer, ...]
    """Highest first."""
    fallbacks: tuple[FallbackAnswer, ...]


@attrs.frozen(kw_only=True)
class FallbackAnswer:
    """How often services moved from one tier to another for one reason."""

    left: str
    to: str
    reason: str
    count: int


@attrs.frozen(kw_only=True)
class ServiceAnswer:
    """One service: its path, the tiers that can carry it, and the decision."""

    name: str
    protocol: Protocol
    listen: tuple[str, ...]
    path: Path
    slow_path_reasons: tuple[str, ...]
    chain: tuple[str, ...]
    """Tiers that can carry it, chosen first."""
    chosen: str | None
    decision: Decision
    traffic: tuple[TrafficAnswer, ...]
    origin: str
    """Where it is declared, ``file:line``."""


@attrs.frozen(kw_only=True)
class ClassificationAnswer:
    """``GET /admin/rules/classification``."""

    services: tuple[ServiceAnswer, ...]


@attrs.frozen(kw_only=True)
class BackendAnswer:
    """One backend of one service; times in UTC."""

    service: str
    backend: str
    weight: int
    """0 too while it is flushed, whatever the configuration gives it."""
    flush: bool
    state: Health
    reason: str
    since: datetime
    last_check: datetime | None
    last_check_ok: bool | None
    check_latency_s: float | None
    last_error: str
    """The last failure of a check or a connection; stays when all is well again."""
    failed_checks: int
    """In a row."""
    failed_connections: int
    """In a row."""
    failures_total: int
    connections_active: int


@attrs.frozen(kw_only=True)
class BackendsAnswer:
    """``GET /admin/backends/health``."""

    backends: tuple[BackendAnswer, ...]


class Liveness(enum.StrEnum):
    """The one thing that a liveness probe can be told."""

    ALIVE = "alive"


@attrs.frozen(kw_only=True)
class HealthzAnswer:
    """``GET /healthz``: the daemon answers."""

    status: Liveness
    version: str
    started_at: datetime
    uptime_s: float


@attrs.frozen(kw_only=True)
class ReadyzAnswer:
    """``GET /readyz``: whether every service is carried; 503 when not."""

    ready: bool
    without_tier: tuple[str, ...]
    """Services that no tier carries."""


@attrs.frozen(kw_only=True)
class DrainAnswer:
    """``POST /admin/drain``: the drain has begun."""

    draining: bool
    drain_timeout_s: float


@attrs.frozen(kw_only=True)
class RuleAnswer:
    """One rule at the front door that is in force."""

    prefix: str
    door: Door
    service: str | None
    """The one that it is about; null: all."""
    origin: RuleOrigin
    ends_in_s: float | None
    """Seconds until it ends by itself; null: never."""


@attrs.frozen(kw_only=True)
class DoorAnswer:
    """``GET /admin/door``: the rules, and who keeps to them."""

    rules: tuple[RuleAnswer, ...]
    """Those of all services first, then by service and prefix."""
    kept_by: tuple[str, ...]
    """Tiers that run and keep to the rules, highest first."""
    not_kept_by: tuple[str, ...]
    """Tiers that run and do not: what they carry, they let in."""


@attrs.frozen(kw_only=True)
class DoorRequest:
    """The body of ``POST /admin/door``; it is answered as a GET is, after the change."""

    action: DoorAction
    prefix: str
    """As 192.0.2.0/24 or 2001:db8::/32, or an address, which stands for itself alone."""
    service: str | None = None
    """The one that it is about; null: all."""
    door: Door = Door.BLOCK
    """What is added; of no matter when a rule is removed."""
    lasts_s: float | None = None
    """Seconds until what is added ends by itself; null: never."""


@attrs.frozen(kw_only=True)
class Problem:
    """Any error, as in RFC 9457 (``application/problem+json``)."""

    type: str
    title: str
    status: int
    detail: str
    problems: tuple[ConfigProblem, ...] = ()
    """All problems of a configuration that was refused."""


ReloadAnswer = ReloadResult


def acceleration(view: EngineView) -> AccelerationAnswer:
    """Read the tier table."""
    active = {
        tier: sum(service.connections_active for service in tier_stats.services.values())
        for tier, tier_stats in view.stats().items()
    }
    return AccelerationAnswer(
        tiers=tier_answers(view.plan, view.plugins, active),
        fallbacks=tuple(
            FallbackAnswer(left=left, to=to, reason=reason, count=count)
            for (left, to, reason), count in sorted(view.fallbacks().items())
        ),
    )


def tier_answers(
    plan: Plan, plugins: tuple[PluginRow, ...], active: Mapping[str, int] | None = None
) -> tuple[TierAnswer, ...]:
    """Describe every tier of a plan, given its plugin and its open connections by name."""
    by_name = {row.name: row for row in plugins}
    counts = active or {}
    return tuple(_tier(row, by_name.get(row.name), counts.get(row.name, 0)) for row in plan.tiers)


def _tier(row: TierRow, plugin: PluginRow | None, active: int) -> TierAnswer:
    return TierAnswer(
        name=row.name,
        order=row.order,
        state=row.state,
        reason=row.reason,
        requirements=row.requirements,
        carries=row.carries,
        connections_active=active,
        distribution=plugin.dist if plugin else "",
        version=plugin.version if plugin else "",
        fix=plugin.fault.fix if plugin and plugin.fault else "",
    )


def classification(view: EngineView) -> ClassificationAnswer:
    """Read the plan of each service, with its traffic."""
    stats = view.stats()
    return ClassificationAnswer(
        services=tuple(service_answer(plan, traffic_of(plan.service, stats)) for plan in view.plan.services)
    )


def service_answer(plan: ServicePlan, traffic: tuple[TrafficAnswer, ...] = ()) -> ServiceAnswer:
    """Describe the plan of one service."""
    service = plan.service
    return ServiceAnswer(
        name=service.name,
        protocol=service.protocol,
        listen=tuple(str(endpoint) for endpoint in service.listen),
        path=plan.path,
        slow_path_reasons=service.slow_path_reasons,
        chain=plan.chain,
        chosen=plan.chosen,
        decision=plan.decision,
        traffic=traffic,
        origin=service.origin,
    )


def backends_health(view: EngineView) -> BackendsAnswer:
    """Read the health of every backend, with its open connections over all tiers."""
    active = backend_connections(view.stats())
    return BackendsAnswer(
        backends=tuple(
            BackendAnswer(
                service=row.service,
                backend=str(row.backend),
                weight=row.weight,
                flush=row.flush,
                state=row.health,
                reason=row.reason,
                since=datetime.fromtimestamp(row.since, UTC),
                last_check=None if row.last_check is None else datetime.fromtimestamp(row.last_check, UTC),
                last_check_ok=row.last_check_ok,
                check_latency_s=row.last_check_latency_s,
                last_error=row.last_error,
                failed_checks=row.failed_checks,
                failed_connections=row.failed_connections,
                failures_total=row.failures_total,
                connections_active=active.get((row.service, str(row.backend)), 0),
            )
            for row in view.board.rows()
        )
    )


def backend_connections(stats: Mapping[str, TierStats]) -> Counter[tuple[str, str]]:
    """Sum the open connections of each backend over all tiers, by service and address."""
    active: Counter[tuple[str, str]] = Counter()
    for tier_stats in stats.values():
        for service, counters in tier_stats.services.items():
            for backend, count in counters.backend_active.items():
                active[service, backend] += count
    return active


def healthz(view: EngineView) -> HealthzAnswer:
    """Say that the daemon lives."""
    return HealthzAnswer(
        status=Liveness.ALIVE,
        version=version(),
        started_at=view.started_at,
        uptime_s=(datetime.now(UTC) - view.started_at).total_seconds(),
    )


def readyz(view: EngineView) -> ReadyzAnswer:
    """Say whether the daemon takes traffic for every service."""
    without = tuple(plan.service.name for plan in view.plan.services if plan.chosen is None)
    return ReadyzAnswer(ready=view.ready, without_tier=without)


def door(view: EngineView, now: float) -> DoorAnswer:
    """Read the rules at the front door, given the time on trio's clock."""
    running = [row for row in view.plan.tiers if row.state in (TierState.CHOSEN, TierState.ARMED)]
    return DoorAnswer(
        rules=tuple(_rule(known, now) for known in view.door()),
        kept_by=tuple(row.name for row in running if row.keeps_door),
        not_kept_by=tuple(row.name for row in running if not row.keeps_door),
    )


def _rule(known: KnownRule, now: float) -> RuleAnswer:
    return RuleAnswer(
        prefix=str(known.rule.prefix),
        door=known.rule.door,
        service=known.rule.service or None,
        origin=known.origin,
        ends_in_s=None if known.ends_at is None else max(known.ends_at - now, 0.0),
    )


def drain(view: EngineView) -> DrainAnswer:
    """Say how long a drain will take; begins none."""
    return DrainAnswer(draining=True, drain_timeout_s=view.config.settings.drain_timeout)
