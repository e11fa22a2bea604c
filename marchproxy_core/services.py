"""What a service is: where clients connect, which backends carry it, and what it asks of a tier.

Plain frozen values, built by ``marchproxy_core.config`` from a rules file and read by the planner, the
tiers and the admin API. Nothing here does I/O.
"""

from __future__ import annotations

import enum
import ipaddress

import attrs

from marchproxy_core.door import Prefix
from marchproxy_core.http_services import (
    Auth,
    AuthType,
    BackendTls,
    Cache,
    Certificate,
    Compression,
    HeaderRules,
    Http,
    HttpVersion,
    Retry,
    RetryOn,
    Tls,
    TlsVersion,
)

__all__ = [
    "ANY_IPV4",
    "ANY_IPV6",
    "Auth",
    "AuthType",
    "Backend",
    "BackendTls",
    "Balance",
    "Cache",
    "Certificate",
    "Compression",
    "Endpoint",
    "HeaderRules",
    "HealthCheck",
    "HealthCheckKind",
    "Http",
    "HttpVersion",
    "IPAddress",
    "Protocol",
    "ProxyHeader",
    "ProxyProtocol",
    "Retry",
    "RetryOn",
    "Service",
    "Tls",
    "TlsVersion",
]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

ANY_IPV4 = ipaddress.IPv4Address(0)
ANY_IPV6 = ipaddress.IPv6Address(0)


class Protocol(enum.StrEnum):
    """Transport protocol of a service."""

    TCP = "tcp"
    UDP = "udp"


class Balance(enum.StrEnum):
    """How a service picks a backend for a new connection or flow."""

    ROUND_ROBIN = "round_robin"
    LEAST_CONNECTIONS = "least_connections"
    RANDOM = "random"
    """Random of two: draw two backends by weight, take the one with fewer connections."""
    MAGLEV = "maglev"


@attrs.frozen(order=True)
class Endpoint:
    """An IP address and a port, 1 to 65535."""

    ip: IPAddress = attrs.field(order=lambda ip: (ip.version, int(ip)))
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read ``10.0.0.1:80`` or ``[::1]:80``.

        Raises:
            ValueError: The text is not an address and a port in range.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("want IP:PORT or [IPV6]:PORT, with a port from 1 to 65535")
        if host.startswith("[") and host.endswith("]"):
            return cls(ipaddress.IPv6Address(host[1:-1]), int(port))
        return cls(ipaddress.IPv4Address(host), int(port))

    @property
    def is_wildcard(self) -> bool:
        """Whether the address stands for every address of the host."""
        return self.ip in (ANY_IPV4, ANY_IPV6)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


@attrs.frozen(kw_only=True)
class Backend:
    """A server behind a service.

    ``weight`` is its share among the backends, 0 to 65535; 0 drains it: established connections stay,
    new ones go elsewhere.

    Raises:
        ValueError: It is flushed and has a weight.
    """

    endpoint: Endpoint
    weight: int = 1
    flush: bool = attrs.field(default=False)
    """Whether what is established ends at once: connections are reset, and the next datagram of a UDP flow goes to
    another backend. Its weight is 0, so that who looks at weights alone gives it nothing new."""

    @flush.validator
    def _has_no_weight(self, attribute: attrs.Attribute[bool], value: bool) -> None:
        del attribute
        if value and self.weight:
            raise ValueError("a backend that is flushed has weight 0")


class HealthCheckKind(enum.StrEnum):
    """What an active health check does."""

    TCP = "tcp"
    """Connect; the handshake is the answer."""
    HTTP = "http"
    """``GET path`` over HTTP/1.1; a status in ``expect_status`` is the answer."""


@attrs.frozen(kw_only=True)
class HealthCheck:
    """Active health check of each backend of a service; times in seconds."""

    kind: HealthCheckKind = HealthCheckKind.TCP
    interval_s: float = 2.0
    timeout_s: float = 1.0
    rise: int = 2
    """Successes in a row that bring a backend up."""
    fall: int = 3
    """Failures in a row that take a backend down."""
    port: int | None = None
    """Port to check; the backend's own when None."""
    path: str = "/"
    host: str | None = None
    """``Host`` header of an HTTP check; the backend's address when None."""
    expect_status: tuple[int, int] = (200, 399)
    """First and last status that count as healthy."""


class ProxyHeader(enum.StrEnum):
    """Version of the PROXY protocol header sent to a backend."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


@attrs.frozen(kw_only=True)
class ProxyProtocol:
    """PROXY protocol of a TCP service, as in haproxy.org's proxy-protocol.txt."""

    send: ProxyHeader = ProxyHeader.OFF
    accept: bool = False
    """Whether clients must begin with a version 2 header; a connection without one is closed."""


@attrs.frozen(kw_only=True)
class Service:
    """One proxied service; ``name`` is unique and is its identity across reloads.

    Raises:
        ValueError: It asks for what needs HTTP and has no ``http``, or has it where HTTP cannot be.
    """

    name: str
    protocol: Protocol = Protocol.TCP
    listen: tuple[Endpoint, ...]
    """Where clients connect; at least one."""
    backends: tuple[Backend, ...]
    """At least one."""
    balance: Balance = Balance.ROUND_ROBIN
    health_check: HealthCheck | None = None
    auth: Auth = attrs.field(default=Auth())
    tls: Tls | None = None
    websocket: bool = False
    cache: Cache | None = None
    http: Http | None = attrs.field(default=None)
    """Not None: its connections are read as HTTP. So they are with JWT, WebSocket, cache, and TLS that ends here."""
    proxy_protocol: ProxyProtocol = ProxyProtocol()
    max_connections: int | None = None
    """Open connections or flows at once; None: ``SERVICE_MAX_CONNECTIONS``."""
    connection_rate: float | None = None
    """New connections or flows a second; None: ``SERVICE_CONNECTION_RATE``."""
    block: tuple[Prefix, ...] = ()
    """Prefixes of clients that may not come in."""
    allow: tuple[Prefix, ...] = ()
    """Those that may, although a shorter one in ``block`` has them."""
    tier: str | None = None
    """The only tier that may carry the service; None: the planner picks."""
    origin: str = attrs.field(default="", eq=False)
    """Where it was declared, ``file:line``; not part of what it is."""

    @http.validator
    def _is_where_it_is_needed(self, attribute: attrs.Attribute[Http | None], value: Http | None) -> None:
        del attribute
        ended = self.tls is not None and not self.tls.passthrough
        if value is None:
            if ended or self.websocket or self.cache is not None or self.auth.type is not AuthType.NONE:
                raise ValueError("JWT, WebSocket, a cache and TLS that ends here need http")
        elif self.protocol is Protocol.UDP or (self.tls is not None and not ended):
            raise ValueError("neither UDP nor TLS that is passed through can be read as HTTP")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of servers for which it shares a listen address with others, read as HTTP or not; none: any."""
        if self.http is not None:
            return self.http.hosts
        return self.tls.hosts if self.tls is not None else ()

    @property
    def slow_path_reasons(self) -> tuple[str, ...]:
        """Why only a full-feature tier can carry it; empty for a fast-path service."""
        passthrough = self.tls is not None and self.tls.passthrough
        asks = {
            f"auth_type is {self.auth.type.value}": self.auth.type is not AuthType.NONE,
            "tls_enabled": self.tls is not None and not passthrough,
            "tls_passthrough": passthrough,
            "websocket": self.websocket,
            "cache_enabled": self.cache is not None,
        }
        reasons = tuple(reason for reason, asked in asks.items() if asked)
        if self.http is None:
            return reasons
        return (*reasons, *self.http.asks) or ("http: true",)
