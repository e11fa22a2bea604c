"""Which listener a request comes in at, and which service takes it there. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.drops import DropReason
from marchproxy_core.explaining.asked import Refusal, Step, step
from marchproxy_core.model import Candidate
from marchproxy_core.routing.router import Route, Router
from marchproxy_core.services import Protocol, Service

if TYPE_CHECKING:
    from marchproxy_core.explaining.asked import Asked
    from marchproxy_core.services import Endpoint


@attrs.frozen(kw_only=True)
class Found:
    """What a request is for."""

    service: Service
    route: Route


def find_listener(
    asked: Asked, services: Sequence[Service], listen: str | None
) -> tuple[Step, tuple[Service, ...]]:
    """Find the listener; returns the services that share it, none where there is none.

    Args:
        asked: The request.
        services: All that there are.
        listen: The listener, ``IP:PORT``; None: by the URL.
    """
    shared: dict[Endpoint, list[Service]] = {}
    for service in services:
        if service.protocol is Protocol.TCP:
            for endpoint in service.listen:
                shared.setdefault(endpoint, []).append(service)
    # Connections to an address that has a listener of its own go there, not to the one of every address.
    ranked = sorted(shared.items(), key=lambda item: item[0].is_wildcard)
    chosen: Endpoint | None = None
    candidates = []
    for endpoint, members in ranked:
        obstacle = _obstacle(asked, endpoint, members, listen)
        if obstacle:
            candidates.append(Candidate(str(endpoint), taken=False, reason=obstacle))
        elif chosen is None:
            chosen = endpoint
            candidates.append(Candidate(str(endpoint), taken=True, reason=_why(asked, members, listen)))
        else:
            reason = f"{chosen} comes first; --listen {endpoint} asks about this one"
            candidates.append(Candidate(str(endpoint), taken=False, reason=reason))
    candidates += [
        Candidate(str(endpoint), taken=False, reason=f"{service.name} is UDP")
        for service in services
        if service.protocol is Protocol.UDP
        for endpoint in service.listen
    ]
    refusal = None if chosen else Refusal(None, None, "nobody listens there")
    found = step("listener", str(chosen) if chosen else None, candidates, refusal)
    return found, tuple(shared[chosen]) if chosen else ()


def _obstacle(asked: Asked, endpoint: Endpoint, members: list[Service], listen: str | None) -> str:
    if listen is not None and str(endpoint) != listen:
        return f"--listen is {listen}"
    if listen is None:
        if endpoint.port != asked.port:
            return f"port: {endpoint.port} is not the URL's, {asked.port}"
        address = _address(asked.name)
        if address is not None and not _takes(endpoint, address):
            return f"address: {endpoint.ip} is not the URL's, {address}"
    is_read = any(service.http is not None or service.tls is not None for service in members)
    has_tls = any(service.tls is not None for service in members)
    if is_read and has_tls is not (asked.scheme == "https"):
        return f"scheme: {'TLS' if has_tls else 'no TLS'} is spoken here, and the URL's is {asked.scheme}"
    return ""


def _takes(endpoint: Endpoint, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return endpoint.ip == address or (endpoint.is_wildcard and endpoint.ip.version == address.version)


def _why(asked: Asked, members: list[Service], listen: str | None) -> str:
    names = ", ".join(service.name for service in members)
    if listen is not None:
        return f"--listen; of {names}"
    known = "" if _address(asked.name) is not None else f"; {asked.name} is not looked up"
    return f"of {names}; port and scheme are the URL's{known}"


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None


def find_route(asked: Asked, members: Sequence[Service]) -> tuple[Step, Found | None]:
    """Find the service of a request among those that share its listener."""
    unread = [service for service in members if service.http is None and service.tls is None]
    if unread:
        service = unread[0]
        reason = "bytes are relayed as they are, whatever they say"
        only = step("route", service.name, [Candidate(service.name, taken=True, reason=reason)])
        return only, Found(service=service, route=Route(service=service.name))
    by_name = {service.name: service for service in members}
    routes = [route for service in members for route in routes_of(service)]
    passed = _find_passed(asked, by_name, routes)
    if passed is not None:
        return passed
    candidates, taken = _judge(asked, asked.host, by_name, routes)
    if taken is None:
        refusal = Refusal(404, DropReason.NO_ROUTE, "no route takes its host and path")
        return step("route", None, candidates, refusal), None
    service = by_name[taken.service]
    misdirected: Refusal | None = None
    if service.http is None:
        why = f"TLS of {service.name} is passed through, and this client's ends here: it asked TLS for {asked.name}"
        misdirected = Refusal(421, DropReason.MISDIRECTED, why)
    return step("route", _named(taken), candidates, misdirected), Found(service=service, route=taken)


def routes_of(service: Service) -> list[Route]:
    """Return the routes of a service that is read as HTTP, or whose TLS is passed through."""
    paths = service.http.paths if service.http is not None else ("/",)
    hosts = service.hosts or ("*",)
    return [
        Route(service=service.name, host=host.encode("latin-1"), path=path.encode("latin-1"))
        for host in hosts
        for path in paths
    ]


def _find_passed(
    asked: Asked, by_name: dict[str, Service], routes: list[Route]
) -> tuple[Step, Found | None] | None:
    """Find the service whose TLS is passed through, by the name that the client asks TLS for; None: it ends here."""
    if all(service.http is not None for service in by_name.values()):
        return None
    first = next(iter(Router(routes).candidates(asked.name.encode())), None)
    if first is not None and by_name[first.service].http is not None:
        return None
    whole = [attrs.evolve(route, path=b"/") for route in routes]
    candidates, taken = _judge(asked, asked.name, by_name, whole)
    if taken is None:
        refusal = Refusal(None, DropReason.TLS_FAILED, f"nobody takes TLS for {asked.name}")
        return step("route", None, candidates, refusal), None
    found = Found(service=by_name[taken.service], route=taken)
    return step("route", f"{_named(taken)}, TLS passed through", candidates), found


def _judge(
    asked: Asked, host: str, by_name: dict[str, Service], routes: list[Route]
) -> tuple[list[Candidate], Route | None]:
    """Say of each route why it is or is not the one, in the order in which they are asked."""
    fitting = Router(routes).candidates(host.encode("latin-1"))
    path = b"/" if asked.path == "*" else asked.bare_path.encode("latin-1")
    taken: Route | None = None
    candidates = []
    for route in fitting:
        if not route.takes_path(path):
            reason = f"path: {asked.bare_path} is not below {_text(route.path)}"
        elif taken is not None:
            reason = f"would take it, but {_named(taken)} comes first"
        else:
            taken = route
            how = "any host" if route.host == b"*" else f"host {_text(route.host)}"
            candidates.append(
                Candidate(_named(route), taken=True, reason=f"{how}, path below {_text(route.path)}")
            )
            continue
        candidates.append(Candidate(_named(route), taken=False, reason=reason))
    candidates += [
        Candidate(_named(route), taken=False, reason=f"host: {host} is not {_text(route.host)}")
        for route in routes
        if route not in fitting
    ]
    return candidates, taken


def _named(route: Route) -> str:
    return f"{route.service} {_text(route.host + route.path)}"


def _text(data: bytes) -> str:
    return data.decode("latin-1")
