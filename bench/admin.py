"""Asks MarchProxy by its admin API whether the service really runs on the tier that is measured. Blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.configurations import admin_address
from marchproxy_core.admin.answers import ClassificationAnswer, ReadyzAnswer
from marchproxy_core.cli.client import AdminClient
from marchproxy_core.errors import AdminError, MarchProxyError

if TYPE_CHECKING:
    from marchproxy_core.admin.answers import ServiceAnswer

_READY_OR_NOT = (200, 503)


class WrongTier(MarchProxyError):
    """What is measured would not be, or was not, what the row is called."""


def runs_on(directory: Path, tier: str) -> bool:
    """Whether the daemon with this directory is ready, and the tier counts for the service; neither comes at once.

    A tier in the kernel counts for a service from when it has it in its tables, a moment after the daemon is ready.

    Raises:
        WrongTier: It has decided, and the service runs elsewhere or nowhere; says why.
    """
    client = AdminClient(address=admin_address(directory))
    try:
        ready = client.get("/readyz", ReadyzAnswer, _READY_OR_NOT)
        service = _service(client)
    except AdminError:
        return False
    if service is None or not (ready.ready or ready.without_tier):
        return False
    if service.chosen != tier:
        why = "; ".join(f"{one.name}: {one.reason}" for one in service.decision.candidates if not one.taken)
        raise WrongTier(f"the service runs on {service.chosen or 'no tier'}, not on {tier}: {why}")
    return ready.ready and any(one.tier == tier for one in service.traffic)


def confirm_carried(directory: Path, tier: str) -> None:
    """Check that packets passed the tier.

    Raises:
        WrongTier: It counted none.
        AdminError: The daemon does not answer.
    """
    service = _service(AdminClient(address=admin_address(directory)))
    traffic = service.traffic if service is not None else ()
    packets = sum(one.packets_in + one.packets_out for one in traffic if one.tier == tier)
    if not packets:
        counted = ", ".join(f"{one.tier} {one.packets_in} packets, {one.bytes_in} bytes" for one in traffic)
        raise WrongTier(f"what was measured did not pass tier {tier}; counted: {counted or 'nothing'}")


def _service(client: AdminClient) -> ServiceAnswer | None:
    """Return the one service there is; none while the daemon has not planned yet."""
    return next(iter(client.get("/admin/rules/classification", ClassificationAnswer).services), None)
