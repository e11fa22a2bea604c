"""What a connection to a backend begins with: a PROXY header, and TLS with somebody who has to prove his name. Pure."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import attrs

from marchproxy_application.tls.files import Unusable
from marchproxy_core.relay.proxy_header import encode_v1, encode_v2
from marchproxy_core.services import ProxyHeader

if TYPE_CHECKING:
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.service import HttpService
    from marchproxy_core.services import Endpoint


@attrs.frozen
class Verified:
    """Whom a backend has proved to be, and to whose satisfaction; connections of one may serve no other."""

    context: ssl.SSLContext
    name: str
    """A server's name, or an IP address."""
    is_ours: bool
    """Whether the configuration has the name; else it is the request's host, and the client answers for it."""


def verified_by(service: HttpService, endpoint: Endpoint, exchange: Exchange) -> Verified | Unusable | None:
    """Return whom a backend has to be for a request; None: it is spoken to in plain text."""
    context, tls = service.backend_context, service.http.backend_tls
    if context is None or tls is None:
        return None
    if isinstance(context, Unusable):
        return context
    if tls.name is not None:
        return Verified(context, tls.name, is_ours=True)
    host = service.http.host_header or exchange.prepared.head.host.decode("latin-1")
    name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    return Verified(context, name or str(endpoint.ip), is_ours=False)


def proxy_header(service: HttpService, exchange: Exchange) -> bytes:
    """Return the header that names a request's client; empty: the backend wants none."""
    wanted = service.carried.work.service.proxy_protocol.send
    if wanted is ProxyHeader.OFF:
        return b""
    source, destination = exchange.client.ends
    return encode_v1(source, destination) if wanted is ProxyHeader.V1 else encode_v2(source, destination)
