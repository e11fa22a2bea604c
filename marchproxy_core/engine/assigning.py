"""From a plan to what each tier's table holds. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.model import Assignment, Role, ServiceTable
from marchproxy_core.planner import roles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from marchproxy_core.config import Settings
    from marchproxy_core.door import Rule
    from marchproxy_core.model import BackendView, Carries, Listener, Plan
    from marchproxy_core.services import Service


def tables(
    *,
    possible: Plan,
    actual: Plan,
    carries: Mapping[str, Carries],
    backends: Callable[[Service], tuple[BackendView, ...]],
    listeners: Callable[[Service], tuple[Listener, ...]],
    settings: Settings,
    door: tuple[Rule, ...] = (),
    draining: tuple[Service, ...] = (),
    attached: Iterable[str] = (),
    given_up: Mapping[str, Mapping[str, Service]] | None = None,
) -> dict[str, ServiceTable]:
    """Say what every tier has to carry, by tier.

    Args:
        possible: The plan as if no tier were down: it says who is to be attached.
        actual: The plan with the tiers that are up: it says who does what now.
        carries: What each tier moves.
        backends: The backends of a service as they are now.
        listeners: The open listeners of a service.
        settings: The settings in force.
        door: The rules at the front door.
        draining: Services that are going away; every tier keeps what is established of them.
        attached: Tiers that may have some of it, also those that nobody needs any more.
        given_up: By tier and name, services as they were when it could still carry them: it keeps what is established.
    """
    result: dict[str, dict[str, Assignment]] = {tier: {} for tier in (*carries, *attached)}
    chains = {plan.service.name: plan.chain for plan in actual.services}
    for plan in possible.services:
        service = plan.service
        if service in draining:
            continue
        duty = roles(chains[service.name], carries)
        for tier in plan.chain:
            result[tier][service.name] = Assignment(
                service=service,
                role=duty.get(tier, Role.STANDBY),
                backends=backends(service),
                listeners=listeners(service),
            )
    for tier, services in (given_up or {}).items():
        for name, service in services.items():
            result.setdefault(tier, {}).setdefault(
                name, Assignment(service=service, role=Role.DRAINING, backends=())
            )
    for service in draining:
        for assignments in result.values():
            assignments.setdefault(service.name, Assignment(service=service, role=Role.DRAINING, backends=()))
    return {tier: ServiceTable(assignments, settings, door) for tier, assignments in result.items()}
