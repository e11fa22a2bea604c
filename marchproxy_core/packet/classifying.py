"""Which services packet tiers can carry at all. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.model import Path, Verdict
from marchproxy_core.services import ProxyHeader

if TYPE_CHECKING:
    from marchproxy_core.services import Service


def verdict(service: Service, where: str) -> Verdict:
    """Judge a service for a tier that rewrites packets.

    Args:
        service: As configured.
        where: Where the tier does it, for the reason, as ``in the kernel``.
    """
    reason = obstacle(service)
    return Verdict(
        accept=not reason,
        path=Path.SLOW if service.slow_path_reasons else Path.FAST,
        reason=reason or f"{service.protocol} packets are rewritten {where}",
    )


def obstacle(service: Service) -> str:
    """Return why no packet tier can carry a service; empty when one can."""
    asks = "; ".join(service.slow_path_reasons)
    if asks:
        return f"{asks}: needs a tier that reads HTTP or TLS"
    proxy = service.proxy_protocol
    if proxy.send is not ProxyHeader.OFF or proxy.accept:
        return "proxy_protocol adds bytes to the stream, or takes some: needs a tier that ends connections"
    if all(endpoint.ip.is_loopback for endpoint in service.listen):
        return "it listens on loopback only: what starts on this host passes no interface"
    if all(backend.endpoint.ip.is_loopback for backend in service.backends):
        return "its backends are on this host's loopback: packets to them pass no interface"
    versions = {backend.endpoint.ip.version for backend in service.backends}
    if not versions & {endpoint.ip.version for endpoint in service.listen}:
        return (
            "clients and backends have different versions of IP, and packets are not translated between them"
        )
    return ""
