"""Whether two services may have the same listen address, told apart by host and path. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from marchproxy_core.services import Service, Tls

_ANY_HOST = "any host"
_OWN = "an address of its own"


@attrs.frozen
class Conflict:
    """Why two services cannot share an address."""

    got: str
    """What both claim, before the address; empty: the address itself."""
    want: str


def conflict(first: Service, second: Service) -> Conflict | None:
    """Return what stands in the way of two services at one address; None when they may share it.

    What comes before a request is told apart by nobody, so they must agree about it; a tier that carries one of
    them accepts for both, so they must have the same.
    """
    wants = {
        _OWN: not _is_told_apart(first) or not _is_told_apart(second),
        f"{_OWN}, or tls_enabled in both or in neither": (first.tls is None) != (second.tls is None),
        f"{_OWN}, or the same proxy_protocol.accept in both": first.proxy_protocol.accept
        != second.proxy_protocol.accept,
        f"{_OWN}, or the same tls_client_ca, tls_client_auth and tls_min_version in both": _differ(
            first.tls, second.tls
        ),
        f"{_OWN}, or the same tier in both": first.tier != second.tier,
    }
    for want, stands in wants.items():
        if stands:
            return Conflict("", want)
    both = set(_claims(first, second)) & set(_claims(second, first))
    if both:
        return Conflict(", ".join(sorted(both)), "a host and path of its own, or an address")
    return None


def _is_told_apart(service: Service) -> bool:
    return service.http is not None or (service.tls is not None and service.tls.passthrough)


def _differ(first: Tls | None, second: Tls | None) -> bool:
    """Whether TLS that ends here is to begin in two ways: the first message already is an answer to that."""
    if first is None or second is None or first.passthrough or second.passthrough:
        return False
    return (first.client_ca, first.client_optional, first.min_version) != (
        second.client_ca,
        second.client_optional,
        second.min_version,
    )


def _claims(service: Service, other: Service) -> Iterator[str]:
    """Each host with each path, or hosts alone where one of the two never sees a path."""
    paths: tuple[str, ...] = ("",)
    if service.http is not None and other.http is not None:
        paths = service.http.paths
    for host in service.hosts or (_ANY_HOST,):
        for path in paths:
            yield f"{host} {path}".rstrip()
