"""Asking every tier what it can do: probes in threads with a deadline, then their verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from marchproxy_core.config import Enable
from marchproxy_core.engine.calling import call_hook
from marchproxy_core.errors import TierFault
from marchproxy_core.model import Outcome
from marchproxy_core.planner import TierFacts

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_core.model import ProbeReport, Verdict
    from marchproxy_core.plugins import Tiers
    from marchproxy_core.services import Service

ASK_DEADLINE_S = 1.0


async def probe_tier(tiers: Tiers, tier: str, host: HostFacts, settings: Settings) -> ProbeReport:
    """Probe one tier.

    Raises:
        TierFault: The probe raised, or did not answer within a second; its thread is then left to itself, since a
            probe has no side effects.
    """
    with trio.move_on_after(ASK_DEADLINE_S):
        return await call_hook(tier, tiers.probe, tier, host, settings)
    raise _hung(tier, "probe")


async def ask_tiers(
    tiers: Tiers, host: HostFacts, settings: Settings, services: tuple[Service, ...]
) -> tuple[TierFacts, ...]:
    """Ask every tier at once, as :func:`ask_tier` does; those that could not be loaded have their fault too."""
    facts: dict[str, TierFacts] = {
        row.name: TierFacts(name=row.name, fault=row.fault) for row in tiers.rows if row.fault is not None
    }

    async def ask(tier: str) -> None:
        facts[tier] = await ask_tier(tiers, tier, host, settings, services)

    async with trio.open_nursery() as nursery:
        for tier in tiers.names:
            nursery.start_soon(ask, tier)
    return tuple(facts.values())


async def ask_tier(
    tiers: Tiers, tier: str, host: HostFacts, settings: Settings, services: tuple[Service, ...]
) -> TierFacts:
    """Probe one tier and let it classify every service; when it breaks, its fault is in its facts."""
    try:
        report = await probe_tier(tiers, tier, host, settings)
    except TierFault as fault:
        return TierFacts(name=tier, fault=fault)
    verdicts = await _verdicts(tiers, tier, report, services)
    return TierFacts(name=tier, report=report, verdicts=verdicts)


def is_unsure(facts: TierFacts, settings: Settings) -> bool:
    """Whether the tier could not tell what it can do, and so is to be asked again; one that hung is not.

    A thread that hangs in a probe is lost to its tier.
    """
    wanted = settings.enable.get(facts.name, Enable.AUTO) is not Enable.FALSE
    return wanted and facts.report is not None and facts.report.outcome is Outcome.UNKNOWN


async def _verdicts(
    tiers: Tiers, tier: str, report: ProbeReport, services: tuple[Service, ...]
) -> dict[str, Verdict | TierFault]:
    def classify_all() -> dict[str, Verdict | TierFault]:
        return {service.name: _verdict(tiers, tier, service, report) for service in services}

    with trio.move_on_after(ASK_DEADLINE_S):
        return await call_hook(tier, classify_all)
    fault = _hung(tier, "classify")
    return {service.name: fault for service in services}


def _verdict(tiers: Tiers, tier: str, service: Service, report: ProbeReport) -> Verdict | TierFault:
    try:
        return tiers.classify(tier, service, report)
    except TierFault as fault:
        return fault


def _hung(tier: str, hook: str) -> TierFault:
    return TierFault(tier, hook, f"hung: no answer within {ASK_DEADLINE_S:g} s", "update the plugin")
