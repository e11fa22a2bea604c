"""The probe: what of this host can have the program, and what it costs there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.bpf import requirements
from marchproxy_core.model import Carries, ProbeReport, Requirement
from marchproxy_xdp.interfaces import look_at
from marchproxy_xdp.judging import loss_on, mode_for, needs_of

if TYPE_CHECKING:
    from marchproxy_core.bpf import XdpMode
    from marchproxy_core.config import Settings
    from marchproxy_core.host import HostFacts
    from marchproxy_xdp.interfaces import Place

ORDER = 200


def report(host: HostFacts, settings: Settings) -> ProbeReport:
    """Look at the host, in some milliseconds, and change nothing.

    Interfaces that ``XDP_INTERFACE`` names must all do; else one that does is enough, since services of which the
    packets take others are left to the tiers below.

    Raises:
        OSError: The kernel does not tell of its interfaces.
    """
    named = settings.xdp_interface
    places = look_at(named or candidates(host))
    mode = mode_for(settings.xdp_mode, places)
    needs = _named(named, places, mode) if named else (_any(places, mode),)
    return ProbeReport(
        order=ORDER,
        carries=Carries.PACKETS,
        keeps_door=True,
        requirements=(*requirements(host), *needs),
        loses="" if settings.xdp_mode else _loses(places, mode, all_count=bool(named)),
    )


def candidates(host: HostFacts) -> tuple[str, ...]:
    """Names of the interfaces that services may be behind: up, with an address; a name for none if there is none."""
    return tuple(one.name for one in host.interfaces if one.up and one.addresses) or ("",)


def _named(names: tuple[str, ...], places: tuple[Place, ...], mode: XdpMode) -> tuple[Requirement, ...]:
    by_name = {place.name: place for place in places}
    found: list[Requirement] = []
    for name in names:
        place = by_name.get(name)
        found.append(
            Requirement(
                need=f"the Ethernet interface {name} (XDP_INTERFACE)",
                have=_described(place) if place else "none of that name",
                fix="" if place else "change XDP_INTERFACE; ip link shows what there is",
                met=place is not None,
            )
        )
        found += needs_of(place, mode) if place else ()
    return tuple(found)


def _any(places: tuple[Place, ...], mode: XdpMode) -> Requirement:
    needs = {place: needs_of(place, mode) for place in places}
    fit = [place for place in places if not needs[place]]
    unmet = [need for place in places for need in needs[place]]
    against = "; ".join(f"need {need.need}, have {need.have}" for need in unmet)
    there = ", ".join(_described(place) for place in fit) or "none"
    return Requirement(
        need="an Ethernet interface that XDP programs can be on",
        have=f"{there}; for the others: {against}" if fit and against else f"{there}; {against}".rstrip("; "),
        fix=""
        if fit
        else "; ".join(need.fix for need in unmet) or "give the interface of the services an address",
        met=bool(fit),
        source="NETDEV_CMD_DEV_GET, Documentation/netlink/specs/netdev.yaml",
    )


def _loses(places: tuple[Place, ...], mode: XdpMode, *, all_count: bool) -> str:
    """What is lost, if it is lost on each interface that can have the program; on any, where all of them must."""
    losses = {place.name: loss_on(place, mode) for place in places if not needs_of(place, mode)}
    lossy = {name: loss for name, loss in losses.items() if loss}
    if not lossy or (not all_count and len(lossy) < len(losses)):
        return ""
    return "; ".join(
        f"{', '.join(name for name, one in lossy.items() if one == loss)}: {loss}"
        for loss in dict.fromkeys(lossy.values())
    )


def _described(place: Place) -> str:
    told = "" if place.features is not None else ", of which the kernel does not say whether it can"
    return f"{place.name} ({place.driver or 'unknown driver'}{told})"
