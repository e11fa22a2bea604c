"""What the engine's tables hold while a row runs: values, and how they become entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.packet import layout
from marchproxy_core.packet.layout import address_bytes, port_bytes
from marchproxy_core.packet.tables import PICKS_IN_ENTRY, word
from marchproxy_core.services import IPAddress
from marchproxy_core.testing.packets.places import BACKEND, LISTEN, SOURCE, VERSIONS

if TYPE_CHECKING:
    from marchproxy_core.packet.layout import Value
    from marchproxy_core.packet.reasons import Hook
    from marchproxy_core.testing.lab import Dual

TCP, UDP = 6, 17
PROTOCOLS = (TCP, UDP)
FLOWS = 64
"""Places for flows; a world may have less."""
SERVICES = 8
"""Numbers of services, 0 among them."""
BACKENDS = 64
ALL_HOOKS = 3

OPENING, ESTABLISHED, CLOSING = 5, 180, 10
"""Life times in ticks."""
FIRST_PORT, LAST_PORT = 40000, 40099
"""Source ports towards backends."""
PORTS = {TCP: (80, 8080), UDP: (53, 5353)}
"""Of services, and of their backends."""

Entry = tuple[str, bytes, bytes]
"""Table, key, value; the table's name as in ``enum mp_table`` without ``MP_``."""


@attrs.frozen(kw_only=True)
class Backend:
    """One backend, and the proxy's addresses that it may be reached from."""

    address: IPAddress
    port: int
    sources: tuple[IPAddress, ...]


@attrs.frozen(kw_only=True)
class Service:
    """One listen address. Its number is its place among the world's services, from 1 on."""

    address: IPAddress
    port: int
    protocol: int
    picks: tuple[int, ...] = (1,)
    """Places of backends in the world, from 1 on, one for each slot."""
    here: bool = True
    """Whether the hook that runs may carry it; else only the other one may."""
    by_address: bool = False
    limits: Mapping[str, int] = attrs.field(factory=dict)
    """Fields of ``struct mp_service``: max_active, interval, burst."""


@attrs.frozen(kw_only=True)
class World:
    """All tables."""

    services: tuple[Service, ...]
    backends: tuple[Backend, ...]
    settings: Mapping[str, int] = attrs.field(factory=dict)
    """Fields of ``struct mp_settings`` that are not as :data:`DEFAULTS` has them."""
    flows: int = FLOWS
    """Places for flows, at most ``FLOWS``."""
    extra: tuple[Entry, ...] = ()
    """More entries, for what user space would not write."""

    def number(self, version: int, protocol: int) -> int:
        """Return the number of the first service of that kind."""
        for number, service in enumerate(self.services, start=1):
            if service.address.version == version and service.protocol == protocol:
                return number
        raise LookupError(f"no service of IPv{version} and protocol {protocol}")


DEFAULTS: Mapping[str, int] = {
    "first_port": FIRST_PORT,
    "last_port": LAST_PORT,
    "seed": 1,
    "opening_ticks": OPENING,
    "established_ticks": ESTABLISHED,
    "closing_ticks": CLOSING,
    "live_hooks": ALL_HOOKS,
}


def _plain_world() -> World:
    kinds = [(version, protocol) for version in VERSIONS for protocol in PROTOCOLS]
    services, backends = [], []
    for place, (version, protocol) in enumerate(kinds, start=1):
        listen_port, backend_port = PORTS[protocol]
        services.append(
            Service(address=LISTEN.of(version), port=listen_port, protocol=protocol, picks=(place,))
        )
        backends.append(
            Backend(address=BACKEND.of(version), port=backend_port, sources=(SOURCE.of(version),))
        )
    return World(services=tuple(services), backends=tuple(backends))


WORLD = _plain_world()
"""TCP and UDP, IPv4 and IPv6, one backend each."""


def changed(world: World = WORLD, **settings: int) -> World:
    """Return the world with other settings."""
    return attrs.evolve(world, settings={**world.settings, **settings})


def each_service(change: Callable[[Service], Service], world: World = WORLD) -> World:
    """Return the world with all services changed."""
    return attrs.evolve(world, services=tuple(map(change, world.services)))


def each_backend(change: Callable[[Backend], Backend], world: World = WORLD) -> World:
    """Return the world with all backends changed."""
    return attrs.evolve(world, backends=tuple(map(change, world.backends)))


def backends_at(place: Dual, world: World = WORLD) -> World:
    """Return the world with all backends moved to another address."""
    return each_backend(
        lambda backend: attrs.evolve(backend, address=place.of(backend.address.version)), world
    )


def entries(world: World, hook: Hook) -> Iterator[Entry]:
    """Yield all that the tables hold but for the free places: what is pointed to comes before what points to it."""
    first_source = 0
    for place, backend in enumerate(world.backends, start=1):
        for at, source in enumerate(backend.sources, start=first_source):
            yield "SOURCES", word(at), address_bytes(source)
        fields: dict[str, Value] = {
            "address": address_bytes(backend.address),
            "port": port_bytes(backend.port),
            "sources": len(backend.sources),
            "first_source": first_source,
        }
        yield "BACKENDS", word(place), layout.BACKEND.pack(**fields)
        first_source += len(backend.sources)
    yield "SETTINGS", word(0), layout.SETTINGS.pack(**{**DEFAULTS, **world.settings})
    for number, service in enumerate(world.services, start=1):
        yield from _service_entries(service, number, hook)
    yield from world.extra


def _service_entries(service: Service, number: int, hook: Hook) -> Iterator[Entry]:
    for first in range(0, len(service.picks), PICKS_IN_ENTRY):
        picks = service.picks[first : first + PICKS_IN_ENTRY]
        padded = picks + (0,) * (PICKS_IN_ENTRY - len(picks))
        yield "PICKS", word(number) + word(first // PICKS_IN_ENTRY), layout.PICKS.pack(backend=padded)
    key = layout.SERVICE_KEY.pack(
        address=address_bytes(service.address), port=port_bytes(service.port), protocol=service.protocol
    )
    value = layout.SERVICE.pack(
        number=number,
        picks=number,
        slots=len(service.picks),
        hooks=ALL_HOOKS if service.here else ALL_HOOKS & ~hook.bit,
        flags=_BY_ADDRESS if service.by_address else 0,
        **service.limits,
    )
    yield "SERVICES", key, value


_BY_ADDRESS = layout.enumeration("mp_service_flag")["BY_ADDRESS"]
