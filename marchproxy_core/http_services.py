"""What a service asks for beyond carrying bytes: HTTP, TLS, authentication, a cache. Frozen values, no I/O.

Read from ``marchproxy_core.services``, which has these names too.
"""

from __future__ import annotations

import enum

import attrs


class AuthType(enum.StrEnum):
    """How clients prove who they are."""

    NONE = "none"
    JWT = "jwt"


@attrs.frozen(kw_only=True)
class Auth:
    """Authentication of requests; only the application tier can do it."""

    type: AuthType = AuthType.NONE
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Paths of key files (PEM or JWK)."""
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ()
    """Names of RFC 7518 and 8037 that a token may be signed by; none: all that its key's type allows."""
    leeway_s: float = 30.0
    """How far the clocks of issuer and proxy may be apart."""
    required_claims: tuple[str, ...] = ()
    forward_claims: tuple[tuple[str, str], ...] = ()
    """Claims and the request headers that bring them to the backend."""
    jwks_refresh_s: float = 300.0
    """How long a fetched key set counts as fresh that does not say so itself."""


class TlsVersion(enum.StrEnum):
    """Lowest version of TLS that is spoken."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


@attrs.frozen(kw_only=True)
class Certificate:
    """A certificate with its chain, path of a PEM file; ``key`` is in the same file when None."""

    certificate: str
    key: str | None = None


@attrs.frozen(kw_only=True)
class Tls:
    """TLS of clients: ended here, or passed through to the backend as it is; paths of PEM files.

    Raises:
        ValueError: It is passed through and has something that only ending it needs, or it has ``hosts`` and is not.
    """

    certificates: tuple[Certificate, ...] = ()
    """In order of preference: a client whose name none of them has is given the first."""
    client_ca: str | None = None
    """Authorities of the clients' certificates; None: none is asked for."""
    client_optional: bool = False
    """Whether a client may come without a certificate although there is a ``client_ca``."""
    min_version: TlsVersion = TlsVersion.TLS_1_2
    passthrough: bool = attrs.field(default=False)
    """Whether nothing but the ClientHello is read, for the name of the server that is asked for."""
    hosts: tuple[str, ...] = ()
    """Of a service that is passed through: what ``Http.hosts`` is to others, matched against the name asked for."""

    @passthrough.validator
    def _is_one_or_the_other(self, attribute: attrs.Attribute[bool], value: bool) -> None:
        del attribute
        if value and (self.certificates or self.client_ca or self.client_optional):
            raise ValueError("TLS that is passed through has no certificates, and no client_ca")
        if self.hosts and not value:
            raise ValueError("hosts of TLS that is ended are those of http")


@attrs.frozen(kw_only=True)
class Cache:
    """HTTP response cache, of each worker its own."""

    ttl_s: float = 60.0
    vary: tuple[str, ...] = ()
    max_bytes: int = 64 << 20
    max_object_bytes: int = 1 << 20


@attrs.frozen(kw_only=True)
class HeaderRules:
    """What is done to the fields of requests or responses: first ``remove``, then ``set``, then ``add``."""

    set: tuple[tuple[str, str], ...] = ()
    """Name and value that takes the place of all fields of the name."""
    add: tuple[tuple[str, str], ...] = ()
    """Name and value beside those that are there."""
    remove: tuple[str, ...] = ()


class RetryOn(enum.StrEnum):
    """What a request may be tried again after, where that is safe."""

    CONNECT = "connect"
    """No connection to the backend; it has seen nothing of the request."""
    RESET = "reset"
    """The connection ended before the answer began."""
    TIMEOUT = "timeout"
    """The time for one try was up."""
    STATUS_502 = "502"
    STATUS_503 = "503"
    STATUS_504 = "504"


@attrs.frozen(kw_only=True)
class Retry:
    """How often, after what, and within which budget a request is tried again."""

    most: int = 1
    """Tries after the first, 0 to 10."""
    on: frozenset[RetryOn] = frozenset({RetryOn.CONNECT, RetryOn.RESET})
    budget: float = 0.2
    """Tries again as a share of requests, 0 to 1."""
    try_timeout_s: float | None = None
    """Longest time of one try; None: as long as the request has."""


@attrs.frozen(kw_only=True)
class BackendTls:
    """TLS to the backends; paths of PEM files."""

    ca: str | None = None
    """None: the authorities that the system trusts."""
    verify: bool = True
    name: str | None = None
    """Name that is asked for (SNI) and checked; None: the request's host."""
    certificate: str | None = None
    key: str | None = None
    """None: in the file of the certificate."""


class HttpVersion(enum.StrEnum):
    """Version of HTTP that is spoken with backends."""

    HTTP1 = "http1"
    HTTP2 = "http2"


class Compression(enum.StrEnum):
    """Content coding that answers are given."""

    GZIP = "gzip"
    BR = "br"
    ZSTD = "zstd"


@attrs.frozen(kw_only=True)
class Http:
    """What a service whose connections are read as HTTP does with requests; ``Http()`` has the defaults."""

    hosts: tuple[str, ...] = ()
    """``example.com``, or ``*.example.com`` for all names below it, in small letters, no port; none: any."""
    paths: tuple[str, ...] = ("/",)
    """Prefixes in normal form, at least one; one ends where a segment of the path does."""
    strip_path: bool = False
    """Whether the backend gets the path without the prefix that it matched."""
    host_header: str | None = None
    """``Host`` that backends see; None: the client's."""
    request_headers: HeaderRules = HeaderRules()
    response_headers: HeaderRules = HeaderRules()
    compression: tuple[Compression, ...] = ()
    """In order of preference; none: answers stay as they are."""
    retry: Retry = Retry()
    request_timeout_s: float | None = None
    """None: ``REQUEST_TIMEOUT``."""
    request_rate: float | None = None
    """Requests a second of the whole service; None: no limit, here and below."""
    client_request_rate: float | None = None
    """Requests a second of each client, told apart by ``client_key``."""
    client_key: str = "address"
    """``address``, ``header:NAME`` in small letters, or ``claim:NAME``."""
    max_requests: int | None = None
    """Requests being served at once, of the whole service."""
    max_backend_connections: int | None = None
    """Of each backend and worker."""
    max_waiting: int = 1024
    """Requests that wait for a connection, of each backend and worker."""
    max_header_bytes: int = 32768
    max_headers: int = 100
    max_body_bytes: int | None = None
    min_client_rate: int = 0
    """Bytes a second below which a client is too slow, in its request and in taking its answer; 0: never."""
    access_log: float = 1.0
    """Share of requests that are logged, 0 to 1."""
    backend_protocol: HttpVersion = HttpVersion.HTTP1
    backend_tls: BackendTls | None = None
    """None: backends are spoken to in plain text."""

    @property
    def asks(self) -> tuple[str, ...]:
        """What of it only a tier that reads HTTP can do; empty where all is as by default."""
        none, limits = HeaderRules(), (self.request_rate, self.client_request_rate, self.max_requests)
        bounds = (self.max_header_bytes, self.max_headers, self.max_body_bytes, self.min_client_rate)
        pool = (self.max_backend_connections, self.max_waiting)
        asks = {
            "routes by host": self.hosts,
            "routes by path": self.paths != _PLAIN.paths,
            "path rewriting": self.strip_path,
            "header rules": self.request_headers != none or self.response_headers != none or self.host_header,
            "compression": self.compression,
            "retries": self.retry != _PLAIN.retry,
            "request limits": any(limits) or bounds != _BOUNDS or self.request_timeout_s is not None,
            "limits of backend connections": pool != _POOL,
            "access log": self.access_log != _PLAIN.access_log,
            f"backend_protocol is {self.backend_protocol.value}": self.backend_protocol
            is not _PLAIN.backend_protocol,
            "backend_tls": self.backend_tls is not None,
        }
        return tuple(reason for reason, asked in asks.items() if asked)


_PLAIN = Http()
_BOUNDS = (_PLAIN.max_header_bytes, _PLAIN.max_headers, _PLAIN.max_body_bytes, _PLAIN.min_client_rate)
_POOL = (_PLAIN.max_backend_connections, _PLAIN.max_waiting)
