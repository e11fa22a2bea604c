"""Choosing a tier for each service. Pure: reports, verdicts and settings in, a plan with its reasons out.

The engine, ``marchproxy explain`` and the tests call :func:`make_plan` with what they know; nothing here
probes, logs or waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.config import Enable
from marchproxy_core.errors import StartRefused, TierFault
from marchproxy_core.model import (
    Candidate,
    Carries,
    Decision,
    Outcome,
    Path,
    Plan,
    ProbeReport,
    Role,
    ServicePlan,
    TierRow,
    TierState,
    Verdict,
)

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.services import Service

# A broken tier has no order of its own; it is shown last.
_LAST = 1 << 30


@attrs.frozen(kw_only=True)
class TierFacts:
    """What is known of one tier when a plan is made."""

    name: str
    report: ProbeReport | None = None
    """None when the plugin is broken or its probe failed."""
    fault: TierFault | None = None
    verdicts: Mapping[str, Verdict | TierFault] = attrs.field(factory=dict)
    """By service name."""
    down: str = ""
    """Why it may not be used just now (demoted, on probation); empty when it may."""

    @property
    def order(self) -> int:
        """The plugin's own place in the chain."""
        return self.report.order if self.report else _LAST


def make_plan(tiers: tuple[TierFacts, ...], services: tuple[Service, ...], settings: Settings) -> Plan:
    """Give each service the highest tier that can carry it, and the chain it falls back to."""
    ranked = _ranked(tiers, settings)
    plans = tuple(_plan_service(service, ranked, settings) for service in services)
    return Plan(tiers=tuple(_row(tier, plans, settings) for tier in ranked), services=plans)


def check_start(plan: Plan, settings: Settings) -> None:
    """Refuse to start when a required tier cannot run, or a service has no tier.

    Raises:
        StartRefused: With every reason, a line each.
    """
    rows = {row.name: row for row in plan.tiers}
    problems = []
    for name, enable in settings.enable.items():
        row = rows.get(name)
        if enable is not Enable.TRUE:
            continue
        if row is None:
            problems.append(
                f"tier {name!r} is required but not installed - fix: pip install marchproxy-{name}"
            )
        elif row.state in (TierState.REFUSED, TierState.UNKNOWN, TierState.BROKEN, TierState.FAULTED):
            fixes = "; ".join(r.fix for r in row.requirements if r.met is not True and r.fix)
            problems.append(f"tier {name!r} is required but {row.state.value}: {row.reason}" + _fix(fixes))
    for service in plan.services:
        if service.chosen is None:
            where = f"{service.service.origin}: " if service.service.origin else ""
            reasons = "; ".join(f"{c.name}: {c.reason}" for c in service.decision.candidates)
            name = service.service.name
            problems.append(
                f"{where}service {name!r} has no tier to carry it: {reasons or 'none is installed'}"
            )
    if problems:
        raise StartRefused("\n".join(problems))


def roles(chain: tuple[str, ...], carries: Mapping[str, Carries]) -> dict[str, Role]:
    """Say what each tier of a service's chain does, given what kind of tier each is.

    Packet tiers below the chosen one stay armed: packets fall through to them. Of the tiers that accept from
    the core's listeners only the first one accepts, else two would share the clients.
    """
    result: dict[str, Role] = {}
    accepting = False
    for place, tier in enumerate(chain):
        if carries[tier] is Carries.CONNECTIONS and accepting:
            result[tier] = Role.STANDBY
            continue
        accepting = accepting or carries[tier] is Carries.CONNECTIONS
        result[tier] = Role.CHOSEN if place == 0 else Role.ARMED
    return result


def _fix(text: str) -> str:
    return f" - fix: {text}" if text else ""


def _ranked(tiers: tuple[TierFacts, ...], settings: Settings) -> tuple[TierFacts, ...]:
    wanted = {name: place for place, name in enumerate(settings.tier_order)}
    return tuple(sorted(tiers, key=lambda t: (wanted.get(t.name, len(wanted)), t.order, t.name)))


def _plan_service(service: Service, ranked: tuple[TierFacts, ...], settings: Settings) -> ServicePlan:
    candidates = []
    chain: list[str] = []
    for tier in ranked:
        obstacle = _obstacle(tier, service, settings)
        if obstacle:
            candidates.append(Candidate(tier.name, taken=False, reason=obstacle))
            continue
        chain.append(tier.name)
        verdict = tier.verdicts[service.name]
        assert isinstance(verdict, Verdict)
        above = f"; {chain[0]} ranks higher, this is fall-back {len(chain) - 1}" if len(chain) > 1 else ""
        candidates.append(Candidate(tier.name, taken=len(chain) == 1, reason=verdict.reason + above))
    if service.tier is not None and all(tier.name != service.tier for tier in ranked):
        candidates.append(
            Candidate(service.tier, taken=False, reason="pinned to this tier, but it is not installed")
        )
    decision = Decision(
        subject=f"tier of service {service.name}",
        chosen=chain[0] if chain else None,
        candidates=tuple(candidates),
    )
    path = Path.SLOW if service.slow_path_reasons else Path.FAST
    return ServicePlan(service=service, path=path, chain=tuple(chain), decision=decision)


def _obstacle(tier: TierFacts, service: Service, settings: Settings) -> str:
    """Why the tier cannot have the service now; empty when it can."""
    if service.tier is not None and service.tier != tier.name:
        return f"the service is pinned to {service.tier}"
    state, reason = _standing(tier, settings, forced=service.tier == tier.name)
    if state is not TierState.IDLE:
        return f"{state.value}: {reason}"
    verdict = tier.verdicts.get(service.name)
    if verdict is None:
        return "was not asked"
    if isinstance(verdict, TierFault):
        return str(verdict)
    return "" if verdict.accept else f"declined: {verdict.reason}"


def _standing(tier: TierFacts, settings: Settings, *, forced: bool = False) -> tuple[TierState, str]:
    """Whether the tier may be used at all: IDLE when it may, else the state and its reason."""
    enable = settings.enable.get(tier.name, Enable.AUTO)
    if enable is Enable.FALSE:
        return TierState.DISABLED, "switched off in the settings"
    if tier.fault is not None or tier.report is None:
        return TierState.BROKEN, str(tier.fault) if tier.fault else "no probe report"
    if tier.report.outcome is Outcome.REFUSED:
        return TierState.REFUSED, tier.report.reason
    if tier.report.outcome is Outcome.UNKNOWN:
        return TierState.UNKNOWN, tier.report.reason
    if tier.down:
        return TierState.FAULTED, tier.down
    if tier.report.outcome is Outcome.DEGRADED and not forced and enable is not Enable.TRUE:
        return TierState.DEGRADED, f"{tier.report.reason}; skipped unless the settings force it"
    return TierState.IDLE, tier.report.reason


def _row(tier: TierFacts, plans: tuple[ServicePlan, ...], settings: Settings) -> TierRow:
    carries = tuple(plan.service.name for plan in plans if plan.chosen == tier.name)
    state, reason = _standing(tier, settings)
    if carries:
        state, reason = TierState.CHOSEN, f"carries {len(carries)} of {len(plans)} services"
    elif any(tier.name in plan.chain for plan in plans):
        state, reason = TierState.ARMED, "below the chosen tier, ready to take over"
    elif state is TierState.IDLE:
        reason = reason or "could run; no service needs it"
    return TierRow(
        name=tier.name,
        order=tier.report.order if tier.report else None,
        state=state,
        reason=reason,
        requirements=tier.report.requirements if tier.report else (),
        carries=carries,
        keeps_door=tier.report is not None and tier.report.keeps_door,
    )
