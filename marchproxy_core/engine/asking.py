"""Asking every tier what it can do: probes in threads with a deadline, then their verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from marchproxy_core.errors import TierFault
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
        return await trio.to_thread.run_sync(tiers.probe, tier, host, settings, abandon_on_cancel=True)
    raise _hung(tier, "probe")


async def ask_tiers(
    tiers: Tiers, host: HostFacts, settings: Settings, services: tuple[Service, ...]
) -> tuple[TierFacts, ...]:
    """Probe every tier at once and let each classify every service; a broken one has its fault in its facts."""
    facts: dict[str, TierFacts] = {
        row.name: TierFacts(name=row.name, fault=row.fault) for row in tiers.rows if row.fault is not None
    }

    async def ask(tier: str) -> None:
        try:
            report = await probe_tier(tiers, tier, host, settings)
        except TierFault as fault:
            facts[tier] = TierFacts(name=tier, fault=fault)
            return
        facts[tier] = TierFacts(
            name=tier, report=report, verdicts=await _verdicts(tiers, tier, report, services)
        )

    async with trio.open_nursery() as nursery:
        for tier in tiers.names:
            nursery.start_soon(ask, tier)
    return tuple(facts.values())


async def _verdicts(
    tiers: Tiers, tier: str, report: ProbeReport, services: tuple[Service, ...]
) -> dict[str, Verdict | TierFault]:
    def classify_all() -> dict[str, Verdict | TierFault]:
        return {service.name: _verdict(tiers, tier, service, report) for service in services}

    with trio.move_on_after(ASK_DEADLINE_S):
        return await trio.to_thread.run_sync(classify_all, abandon_on_cancel=True)
    fault = _hung(tier, "classify")
    return {service.name: fault for service in services}


def _verdict(tiers: Tiers, tier: str, service: Service, report: ProbeReport) -> Verdict | TierFault:
    try:
        return tiers.classify(tier, service, report)
    except TierFault as fault:
        return fault


def _hung(tier: str, hook: str) -> TierFault:
    return TierFault(tier, hook, f"hung: no answer within {ASK_DEADLINE_S:g} s", "update the plugin")
