"""What the engine's tables are to hold. Pure: services and the network in, entries out.

A service is taken for one version of IP as a whole or not at all: its listen addresses of that version, where all
of its backends have that version and are reached over a network. What is not taken stays with the tiers below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.backends.balancing import usable_weights
from marchproxy_core.backends.maglev import table_size
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.services import Balance, Endpoint, IPAddress, Protocol, Service

if TYPE_CHECKING:
    from marchproxy_core.model import Assignment
    from marchproxy_core.packet.network import NetworkFacts
    from marchproxy_core.services import Backend

_SMALL_TABLES = ((10, 1021), (40, 4093))
"""Backends, and the slots that do for them where a client need not keep its backend: 100 for each."""


@attrs.frozen(kw_only=True)
class Fitness:
    """Which interfaces one hook's program cannot, or should not, be on, by index; all others are fit."""

    refused: Mapping[int, str] = attrs.field(factory=dict)
    """Why it cannot."""
    avoided: Mapping[int, str] = attrs.field(factory=dict)
    """Why a lower tier does better there; not for services that are pinned to this tier."""

    def obstacle(self, interface: int, service: Service) -> str:
        """Return why a service's packets are not to be taken on an interface; empty when they may."""
        found = self.refused.get(interface, "")
        return found or ("" if service.tier else self.avoided.get(interface, ""))


@attrs.frozen(kw_only=True)
class Picks:
    """Which backend gets which share, for one version of IP."""

    endpoints: tuple[Endpoint, ...]
    weights: tuple[int, ...]
    size: int
    by_address: bool


@attrs.frozen(kw_only=True)
class Half:
    """One service for one version of IP."""

    service: Service
    version: int
    hooks: int
    """Bits of those hooks that may open flows for it."""
    keys: tuple[tuple[IPAddress, int, Protocol], ...]
    picks: Picks
    interfaces: frozenset[int]
    """Indexes of those that its packets come in by."""


@attrs.frozen(kw_only=True)
class LeftOut:
    """Why a service, or a part of it, is not taken."""

    service: str
    version: int
    reason: str
    hook: Hook | None = None
    """The one that does not take it; None: none can."""


@attrs.frozen(kw_only=True)
class Arrangement:
    """All that the tables are to hold."""

    halves: tuple[Half, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    fitness: Mapping[Hook, Fitness] = attrs.field(factory=dict)

    def interfaces(self, hook: Hook) -> frozenset[int]:
        """Return the indexes of those that a hook's program is to be on."""
        fitness = self.fitness.get(hook, Fitness())
        return frozenset(
            index
            for half in self.halves
            if half.hooks & hook.bit
            for index in half.interfaces
            if not fitness.obstacle(index, half.service)
        )


def destinations(assignments: Iterable[Assignment]) -> set[IPAddress]:
    """Return the addresses whose way must be known: those of all backends."""
    return {view.backend.endpoint.ip for one in assignments for view in one.backends}


def arrange(
    demands: Mapping[Hook, Mapping[str, Assignment]],
    network: NetworkFacts,
    fitness: Mapping[Hook, Fitness] | None = None,
) -> Arrangement:
    """Work out what the tables are to hold.

    Args:
        demands: What each hook that runs is to carry, by service name.
        network: Facts that know the way to each backend.
        fitness: Where each hook's program can be; everywhere by default.
    """
    fitness = fitness or {}
    hooks: dict[str, list[Hook]] = {}
    wanted: dict[str, Assignment] = {}
    for hook, assignments in demands.items():
        for name, assignment in assignments.items():
            if assignment.role.takes_new:
                hooks.setdefault(name, []).append(hook)
                wanted[name] = assignment
    halves: list[Half] = []
    left_out: list[LeftOut] = []
    for name, assignment in wanted.items():
        for version in sorted({endpoint.ip.version for endpoint in assignment.service.listen}):
            found = _half(assignment, version, network)
            if isinstance(found, LeftOut):
                left_out.append(found)
                continue
            reasons = {
                hook: _unfit(found, assignment, fitness.get(hook, Fitness()), network) for hook in hooks[name]
            }
            left_out += [
                LeftOut(service=name, version=version, reason=reason, hook=hook)
                for hook, reason in reasons.items()
                if reason
            ]
            bits = sum(hook.bit for hook, reason in reasons.items() if not reason)
            if bits:
                halves.append(attrs.evolve(found, hooks=bits))
    return Arrangement(halves=tuple(halves), left_out=tuple(left_out), fitness=fitness)


def _unfit(found: Half, assignment: Assignment, fitness: Fitness, network: NetworkFacts) -> str:
    """Why a hook cannot take the service.

    Answers of backends must meet its program, else the stack resets their flows. Clients that come in by an interface
    without it are no obstacle, since their first packet does not meet it either, unless all of them do.
    """
    for view in assignment.backends:
        ip = view.backend.endpoint.ip
        way = network.ways.get(ip)
        if way is not None and (reason := fitness.obstacle(way.interface, found.service)):
            return f"backend {view.backend.endpoint} is behind {network.names.get(way.interface)}: {reason}"
    fronts = {network.addresses[ip] for ip, _, _ in found.keys if ip in network.addresses}
    reasons = {network.names.get(front): fitness.obstacle(front, found.service) for front in sorted(fronts)}
    if reasons and all(reasons.values()):
        return "; ".join(f"its clients come in by {name}: {reason}" for name, reason in reasons.items())
    return ""


def _half(assignment: Assignment, version: int, network: NetworkFacts) -> Half | LeftOut:
    service = assignment.service
    backends = [view.backend for view in assignment.backends]
    keys = tuple(
        (ip, endpoint.port, service.protocol)
        for endpoint in service.listen
        if endpoint.ip.version == version
        for ip in _expanded(endpoint, network)
    )
    reason = _obstacle(backends, version, network) if keys else "no address to listen on but loopback ones"
    if reason:
        return LeftOut(service=service.name, version=version, reason=reason)
    by_address = service.balance is Balance.MAGLEV
    ways = {network.ways[backend.endpoint.ip].interface for backend in backends}
    return Half(
        service=service,
        version=version,
        hooks=0,
        keys=keys,
        picks=Picks(
            endpoints=tuple(backend.endpoint for backend in backends),
            weights=usable_weights(assignment.backends),
            size=table_size(len(backends)) if by_address else _small_table(len(backends)),
            by_address=by_address,
        ),
        interfaces=frozenset(ways | {network.addresses[ip] for ip, _, _ in keys if ip in network.addresses}),
    )


def _expanded(endpoint: Endpoint, network: NetworkFacts) -> tuple[IPAddress, ...]:
    if endpoint.is_wildcard:
        return tuple(ip for ip in network.addresses if ip.version == endpoint.ip.version)
    return () if endpoint.ip.is_loopback else (endpoint.ip,)


def _obstacle(backends: list[Backend], version: int, network: NetworkFacts) -> str:
    for backend in backends:
        ip = backend.endpoint.ip
        way = network.ways.get(ip)
        if ip.version != version:
            return f"backend {backend.endpoint} is of another version of IP"
        if way is None or not way.interface or way.source is None:
            return f"no route to backend {backend.endpoint}"
        if way.is_local:
            return f"backend {backend.endpoint} is on this host: its packets pass no interface"
        if way.interface not in network.names:
            return f"backend {backend.endpoint} is behind an interface that is no Ethernet, or is down"
    return "" if backends else "it has no backends"


def _small_table(backends: int) -> int:
    return next((size for most, size in _SMALL_TABLES if backends <= most), table_size(backends))
