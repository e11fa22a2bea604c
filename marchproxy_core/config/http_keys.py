"""The keys of a service about requests and answers."""

from __future__ import annotations

import attrs

from marchproxy_core.config.choices import COUNT, DAY_S, RATE, TIMEOUT
from marchproxy_core.config.declare import setting
from marchproxy_core.config.http_kinds import (
    TOKEN,
    ClientKey,
    HeaderLine,
    HeaderName,
    Host,
    PathPrefix,
    Share,
)
from marchproxy_core.config.kinds import Duration, Flag, Integer, ListOf, Number, OneOf, Text
from marchproxy_core.config.tls_keys import BackendTlsKeys
from marchproxy_core.services import Cache, Compression, Http, HttpVersion, Retry, RetryOn

HEADER_LINES = ListOf(
    HeaderLine(), "headers as Name: value in printable ASCII", separator="\n"
)  # values have commas
HEADER_NAMES = ListOf(HeaderName(), "names of headers")
HOST_HEADER = Text("a host name or address, with or without a port", r"[A-Za-z0-9._\[\]:-]{1,255}")
_PLAIN, _CACHE = Http(), Cache()


@attrs.frozen(kw_only=True)
class CacheKeys(BackendTlsKeys):
    """Keys about WebSocket and the cache."""

    websocket: bool = setting(Flag(), False, "Whether WebSocket connections are understood.")
    cache_enabled: bool = setting(Flag(), False, "Whether answers are cached.")
    cache_ttl: float = setting(
        Duration(0, 365 * DAY_S), _CACHE.ttl_s, "How long an answer is kept that does not say so itself."
    )
    cache_vary: tuple[str, ...] = setting(
        ListOf(Text("a header", TOKEN), "names of headers"),
        (),
        "Request headers of which each value has an answer of its own.",
        unset="none",
    )
    cache_max_size: int = setting(
        Integer(1 << 16, 1 << 40, "bytes"), _CACHE.max_bytes, "Memory of each worker's cache."
    )
    cache_max_object: int = setting(
        Integer(1, 1 << 30, "bytes"),
        _CACHE.max_object_bytes,
        "Longest answer that is cached, at most `cache_max_size`.",
    )


@attrs.frozen(kw_only=True)
class RouteKeys(CacheKeys):
    """Keys about which requests a service gets, and what it makes of them."""

    http: bool = setting(
        Flag(), False, "Whether connections are read as HTTP; each key of this table asks for it too."
    )
    hosts: tuple[str, ...] = setting(
        ListOf(Host(), "hosts as example.com, *.example.com or [2001:db8::1], without a port"),
        (),
        "Hosts whose requests it gets, or with `tls_passthrough` the names asked for.",
        unset="any",
    )
    paths: tuple[str, ...] = setting(
        ListOf(
            PathPrefix(),
            "paths that begin with /, in normal form (RFC 3986, section 6.2.2: no dot segments, nothing "
            "percent-encoded that need not be, encodings in capitals), without query",
        ),
        _PLAIN.paths,
        "Paths below which it gets requests, also written `path`; `/api` is `/api` and `/api/…`, not `/apis`.",
    )
    strip_path: bool = setting(
        Flag(), False, "Whether backends get the path without what `paths` matched of it."
    )
    host_header: str | None = setting(
        HOST_HEADER, None, "Host that backends are told.", unset="as the client sent it"
    )
    request_header_remove: tuple[str, ...] = setting(
        HEADER_NAMES, (), "Headers that backends do not get.", unset="none"
    )
    request_header_set: tuple[tuple[str, str], ...] = setting(
        HEADER_LINES, (), "Headers that backends get in place of the client's.", unset="none"
    )
    request_header_add: tuple[tuple[str, str], ...] = setting(
        HEADER_LINES, (), "Headers that backends get beside the client's.", unset="none"
    )
    response_header_remove: tuple[str, ...] = setting(
        HEADER_NAMES, (), "Headers that clients do not get.", unset="none"
    )
    response_header_set: tuple[tuple[str, str], ...] = setting(
        HEADER_LINES, (), "Headers that clients get in place of the backend's.", unset="none"
    )
    response_header_add: tuple[tuple[str, str], ...] = setting(
        HEADER_LINES, (), "Headers that clients get beside the backend's.", unset="none"
    )
    compression: tuple[Compression, ...] = setting(
        ListOf(OneOf(Compression), "gzip, br, zstd in order of preference"),
        (),
        "How text is compressed for clients that take it.",
        unset="not at all",
    )
    access_log: float = setting(Share(), _PLAIN.access_log, "Share of requests that are logged.")


@attrs.frozen(kw_only=True)
class HttpKeys(RouteKeys):
    """Keys about limits of requests, and tries of backends."""

    request_timeout: float | None = setting(
        TIMEOUT, None, "Longest time from a request to the end of its answer.", unset="`REQUEST_TIMEOUT`"
    )
    request_rate: float | None = setting(RATE, None, "Requests of all clients.", unset="no limit")
    client_request_rate: float | None = setting(RATE, None, "Requests of each client.", unset="no limit")
    client_key: str = setting(
        ClientKey(), _PLAIN.client_key, "What clients are told apart by for `client_request_rate`."
    )
    max_requests: int | None = setting(COUNT, None, "Requests being answered at once.", unset="no limit")
    max_header_bytes: int = setting(
        Integer(1024, 1 << 20, "bytes"), _PLAIN.max_header_bytes, "Longest head of a request or an answer."
    )
    max_headers: int = setting(Integer(1, 10_000), _PLAIN.max_headers, "Most headers of one.")
    max_body_bytes: int | None = setting(
        Integer(0, 1 << 50, "bytes"), None, "Longest body of a request.", unset="no limit"
    )
    min_client_rate: int = setting(
        Integer(0, 1 << 30, "bytes a second"),
        _PLAIN.min_client_rate,
        "Rate below which a client is too slow, in sending a request and in taking its answer; 0: never.",
    )
    retries: int = setting(
        Integer(0, 10), _PLAIN.retry.most, "Tries after the first, of requests that may be sent twice."
    )
    retry_on: tuple[RetryOn, ...] = setting(
        ListOf(OneOf(RetryOn), "words of connect, reset, timeout, 502, 503, 504"),
        tuple(one for one in RetryOn if one in _PLAIN.retry.on),
        "What a request is tried again after: no connection, its end before the answer, `try_timeout`, a status.",
    )
    retry_budget: float = setting(
        Number(0, 1), Retry().budget, "Tries after the first, as a share of requests."
    )
    try_timeout: float | None = setting(
        TIMEOUT, None, "Longest time of one try, at most `request_timeout`.", unset="`request_timeout`"
    )
    max_backend_connections: int | None = setting(
        Integer(1, 65535), None, "Connections to each backend, of each worker.", unset="no limit"
    )
    max_waiting: int = setting(
        Integer(0, 1 << 20),
        _PLAIN.max_waiting,
        "Requests that wait for such a connection, for each backend and of each worker.",
    )
    backend_protocol: HttpVersion = setting(
        OneOf(HttpVersion), _PLAIN.backend_protocol, "Version of HTTP that backends are spoken to in."
    )
