"""Checks across settings and services, after each one alone was found well-formed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.config.kinds import UnixAddress
from marchproxy_core.config.sharing import conflict
from marchproxy_core.config.values import DEFAULT
from marchproxy_core.door import Door, Rule, Screen
from marchproxy_core.errors import ConfigProblem
from marchproxy_core.services import ANY_IPV4, ANY_IPV6, Endpoint, Protocol, Service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marchproxy_core.config.problems import Problems
    from marchproxy_core.config.settings import Settings
    from marchproxy_core.config.values import Origin


def check_settings(settings: Settings, origins: Mapping[str, Origin], problems: Problems) -> None:
    """Settings that bound each other."""

    def wrong(variable: str, got: str, want: str) -> None:
        where = str(origins.get(variable, DEFAULT))
        problems.found.append(ConfigProblem(where, variable, got, want))

    if settings.af_xdp_batch_size > settings.af_xdp_queue_size:
        got = f"{settings.af_xdp_batch_size} with AF_XDP_QUEUE_SIZE {settings.af_xdp_queue_size}"
        variable = "AF_XDP_BATCH_SIZE" if "AF_XDP_BATCH_SIZE" in origins else "AF_XDP_QUEUE_SIZE"
        wrong(variable, got, "a batch not above the queue")
    blocked = frozenset(settings.door_block)
    for prefix in settings.door_allow:
        if prefix in blocked:
            wrong("DOOR_ALLOW", f"{prefix} as in DOOR_BLOCK", "each prefix in one of the two")
    listen = settings.admin_listen
    if isinstance(listen, UnixAddress) or listen.ip.is_loopback or settings.admin_token is not None:
        return
    want = "a loopback address or unix:/path, or ADMIN_TOKEN set too"
    wrong("ADMIN_LISTEN", f"an address that others can reach ({listen})", want)


def check_services(
    services: tuple[Service, ...],
    settings: Settings,
    origins: Mapping[str, Origin],
    problems: Problems,
    notes: list[str],
) -> None:
    """Names and listen addresses that two services claim.

    A wildcard and one of the host's addresses on the same port go together: the kernel gives a connection to
    the socket bound to the more exact address (SO_REUSEPORT on both), as users of HAProxy and nginx expect.
    The same address twice would share connections out between two services at random, so it is refused, unless
    what clients say first tells the two apart.
    """
    names: dict[str, Service] = {}
    addresses: dict[tuple[Protocol, Endpoint], list[Service]] = {}
    for service in services:
        first = names.setdefault(service.name, service)
        if first is not service:
            want = f"a name of its own; the first is at {first.origin}"
            problems.found.append(ConfigProblem(service.origin, "name", f"{service.name} again", want))
        _check_listen(service, addresses, problems)
    _check_door(services, settings, origins, problems)
    _check_admin(addresses, settings, origins, problems, notes)


def _check_listen(
    service: Service, addresses: dict[tuple[Protocol, Endpoint], list[Service]], problems: Problems
) -> None:
    """A service's addresses against those of the services before it; each of these is told of once."""
    told: set[str] = set()
    for endpoint in service.listen:
        owners = addresses.setdefault((service.protocol, endpoint), [])
        for owner in owners:
            found = conflict(owner, service)
            if found is None or owner.name in told:
                continue
            told.add(owner.name)
            claim = f"{found.got} on " if found.got else ""
            got = f"{claim}{service.protocol.value} {endpoint} as {owner.name} has it ({owner.origin})"
            what = f"service {service.name}: listen"
            problems.found.append(ConfigProblem(service.origin, what, got, found.want))
        owners.append(service)


def _check_door(
    services: tuple[Service, ...], settings: Settings, origins: Mapping[str, Origin], problems: Problems
) -> None:
    """Backends are not to be shut off: packet tiers drop all that comes from a blocked prefix."""
    doors = ((Door.BLOCK, settings.door_block), (Door.ALLOW, settings.door_allow))
    screen = Screen(Rule(prefix=prefix, door=door) for door, prefixes in doors for prefix in prefixes)
    for service in services:
        shut_off = screen.shuts_off(backend.endpoint for backend in service.backends)
        if shut_off is not None:
            got = f"a prefix with backend {shut_off} of service {service.name} in it, whose answers would be dropped"
            want = f"{shut_off.ip} in DOOR_ALLOW, or blocks without it"
            where = str(origins.get("DOOR_BLOCK", DEFAULT))
            problems.found.append(ConfigProblem(where, "DOOR_BLOCK", got, want))


def _check_admin(
    addresses: Mapping[tuple[Protocol, Endpoint], list[Service]],
    settings: Settings,
    origins: Mapping[str, Origin],
    problems: Problems,
    notes: list[str],
) -> None:
    """The admin API's own address, against those of the TCP services."""
    admin = settings.admin_listen
    if isinstance(admin, UnixAddress):
        return
    for same in addresses.get((Protocol.TCP, admin), [])[:1]:
        where = str(origins.get("ADMIN_LISTEN", same.origin))
        got = f"{admin} as service {same.name} has it ({same.origin})"
        problems.found.append(ConfigProblem(where, "ADMIN_LISTEN", got, "an address of its own"))
        return
    everywhere = Endpoint(ANY_IPV4 if admin.ip.version == 4 else ANY_IPV6, admin.port)
    notes.extend(
        f"{over.origin}: service {over.name} listens on {everywhere}, the admin API on {admin}: "
        "connections to that address go to the admin API; ADMIN_LISTEN moves it"
        for over in addresses.get((Protocol.TCP, everywhere), [])
    )
