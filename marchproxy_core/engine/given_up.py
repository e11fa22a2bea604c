"""Services that a reload took from a tier that cannot carry them any more: what is established goes on there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

from marchproxy_core.services import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from marchproxy_core.model import Plan, TierStats


@final
@attrs.define(eq=False)
class GivenUp:
    """By tier and name: services as they were when the tier could still carry them."""

    by_tier: dict[str, dict[str, Service]] = attrs.field(factory=dict)

    def follow(self, before: Plan, after: Plan, attached: Container[str]) -> None:
        """Take note of a reload; a service that is gone altogether is the drain's, and one that is back its tier's.

        Args:
            before: Who could carry what until now.
            after: Who can from now on.
            attached: Tiers that may have connections.
        """
        now = {plan.service.name: plan.chain for plan in after.services}
        for plan in before.services:
            for tier in plan.chain:
                if tier in attached:
                    self.by_tier.setdefault(tier, {}).setdefault(plan.service.name, plan.service)
        self._keep(lambda tier, name: tier not in now.get(name, (tier,)))

    def let_go(self, stats: Mapping[str, TierStats]) -> None:
        """Forget those that have no connection any more."""

        def is_busy(tier: str, name: str) -> bool:
            found = stats[tier].services.get(name) if tier in stats else None
            return found is not None and found.connections_active > 0

        self._keep(is_busy)

    def _keep(self, is_kept: Callable[[str, str], bool]) -> None:
        kept = {
            tier: {name: service for name, service in services.items() if is_kept(tier, name)}
            for tier, services in self.by_tier.items()
        }
        self.by_tier = {tier: services for tier, services in kept.items() if services}
