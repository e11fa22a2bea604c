"""Services that ask for HTTP, TLS or authentication: what their keys make."""

from __future__ import annotations

from pathlib import Path

import pytest

from marchproxy_core.config import Config, diff, load_text, render_services
from marchproxy_core.config.choices import TIER_NAMES
from marchproxy_core.config.declare import declared
from marchproxy_core.config.service_keys import ServiceKeys
from marchproxy_core.services import (
    Auth,
    AuthType,
    Backend,
    BackendTls,
    Cache,
    Certificate,
    Compression,
    Endpoint,
    HeaderRules,
    Http,
    HttpVersion,
    Protocol,
    Retry,
    RetryOn,
    Service,
    Tls,
    TlsVersion,
)

PASSED = "tls_enabled: true, tls_passthrough: true"
HERE = Endpoint.parse("192.0.2.1:80")
EVERYTHING = """\
- name: web
  listen: 8443
  backends: [10.0.0.1:80]
  hosts: [Example.com, "*.example.org"]
  paths: [/api, /v2/]
  strip_path: true
  host_header: inside.example:8080
  request_header_set: |
    Cache-Control: no-store, max-age=0
    X-Side: in
  request_header_add: ["Accept: a, b"]
  request_header_remove: Cookie, X-Debug
  response_header_set: "Strict-Transport-Security: max-age=31536000"
  response_header_add: ["X-A: 1", "X-A: 2"]
  response_header_remove: [Server]
  compression: zstd, gzip
  access_log: 0.1
  request_timeout: 20s
  request_rate: 1000
  client_request_rate: 2.5
  client_key: header:X-Key
  max_requests: 500
  max_header_bytes: 16384
  max_headers: 50
  max_body_bytes: 0
  min_client_rate: 100
  retries: 3
  retry_on: [connect, timeout, 503]
  retry_budget: 0.5
  try_timeout: 5s
  max_backend_connections: 40
  max_waiting: 0
  backend_protocol: http2
  backend_tls: true
  backend_tls_verify: false
  backend_tls_ca: /ca.pem
  backend_tls_name: inside.example
  backend_tls_certificate: /c.pem
  backend_tls_key: /k.pem
  tls_enabled: true
  tls_certificate: [/a.pem, /b.pem]
  tls_key: [/both.key, /both.key]
  tls_client_ca: /clients.pem
  tls_client_auth: optional
  tls_min_version: 1.3
  auth_type: jwt
  auth_issuer: me
  auth_audience: web
  auth_keys: /jwt.pem
  auth_jwks_url: https://keys.example/set
  auth_jwks_refresh: 10m
  auth_algorithms: [RS256, EdDSA]
  auth_leeway: 5
  auth_required_claims: [sub, scope]
  auth_forward_claims: ["sub: X-User", "https://example.com/roles: X-Roles"]
  websocket: true
  cache_enabled: true
  cache_ttl: 5
  cache_vary: Accept
  cache_max_size: 1048576
  cache_max_object: 65536
"""
HTTP = Http(
    hosts=("example.com", "*.example.org"),
    paths=("/api", "/v2/"),
    strip_path=True,
    host_header="inside.example:8080",
    request_headers=HeaderRules(
        set=(("Cache-Control", "no-store, max-age=0"), ("X-Side", "in")),
        add=(("Accept", "a, b"),),
        remove=("Cookie", "X-Debug"),
    ),
    response_headers=HeaderRules(
        set=(("Strict-Transport-Security", "max-age=31536000"),),
        add=(("X-A", "1"), ("X-A", "2")),
        remove=("Server",),
    ),
    compression=(Compression.ZSTD, Compression.GZIP),
    retry=Retry(
        most=3,
        on=frozenset({RetryOn.CONNECT, RetryOn.TIMEOUT, RetryOn.STATUS_503}),
        budget=0.5,
        try_timeout_s=5.0,
    ),
    request_timeout_s=20.0,
    request_rate=1000.0,
    client_request_rate=2.5,
    client_key="header:x-key",
    max_requests=500,
    max_backend_connections=40,
    max_waiting=0,
    max_header_bytes=16384,
    max_headers=50,
    max_body_bytes=0,
    min_client_rate=100,
    access_log=0.1,
    backend_protocol=HttpVersion.HTTP2,
    backend_tls=BackendTls(
        ca="/ca.pem", verify=False, name="inside.example", certificate="/c.pem", key="/k.pem"
    ),
)


def read(text: str) -> Config:
    return load_text(text.encode(), Path("f.yaml"), {}, TIER_NAMES)


def one(keys: str) -> Service:
    return read(f"- {{name: web, ip: 10.0.0.1, port: 80, {keys}}}\n").services[0]


def test_everything_that_a_service_may_ask_for() -> None:
    (service,) = read(EVERYTHING).services
    assert service.http == HTTP
    assert service.tls == Tls(
        certificates=(
            Certificate(certificate="/a.pem", key="/both.key"),
            Certificate(certificate="/b.pem", key="/both.key"),
        ),
        client_ca="/clients.pem",
        client_optional=True,
        min_version=TlsVersion.TLS_1_3,
    )
    assert service.auth == Auth(
        type=AuthType.JWT,
        issuer="me",
        audience=("web",),
        keys=("/jwt.pem",),
        jwks_url="https://keys.example/set",
        algorithms=("RS256", "EdDSA"),
        leeway_s=5.0,
        required_claims=("sub", "scope"),
        forward_claims=(("sub", "X-User"), ("https://example.com/roles", "X-Roles")),
        jwks_refresh_s=600.0,
    )
    assert service.cache == Cache(ttl_s=5.0, vary=("Accept",), max_bytes=1 << 20, max_object_bytes=1 << 16)
    assert service.slow_path_reasons == (
        "auth_type is jwt",
        "tls_enabled",
        "websocket",
        "cache_enabled",
        "routes by host",
        "routes by path",
        "path rewriting",
        "header rules",
        "compression",
        "retries",
        "request limits",
        "limits of backend connections",
        "access log",
        "backend_protocol is http2",
        "backend_tls",
    )


@pytest.mark.parametrize(
    ("keys", "reasons"),
    [
        ("http: true", ("http: true",)),
        ("hosts: a.example", ("routes by host",)),
        ("path: /", ("http: true",)),
        ("path: /api", ("routes by path",)),
        ("retries: 0", ("retries",)),
        ("max_headers: 100", ("http: true",)),
        ("request_timeout: 5", ("request limits",)),
        ("access_log: off", ("access log",)),
        ("websocket: true", ("websocket",)),
        ("cache_enabled: true", ("cache_enabled",)),
        ("auth_type: jwt", ("auth_type is jwt",)),
        ("tls_enabled: true", ("tls_enabled",)),
    ],
)
def test_what_asks_for_http(keys: str, reasons: tuple[str, ...]) -> None:
    service = one(keys)
    assert service.http is not None
    assert service.slow_path_reasons == reasons


@pytest.mark.parametrize(
    "keys",
    [
        "http: false",
        "strip_path: false, backend_tls: no, compression: []",
        "tls_enabled: false, websocket: false, cache_enabled: false, auth_type: none",
        "cache_ttl: 5, auth_leeway: 5, tls_min_version: 1.3",
    ],
)
def test_what_asks_for_nothing(keys: str) -> None:
    service = one(keys)
    assert service.http is None
    assert service.slow_path_reasons == ()


def test_passing_tls_through_is_not_http_and_yet_no_fast_path() -> None:
    service = one("tls_enabled: true, tls_passthrough: true, hosts: [A.example]")
    assert service.http is None
    assert service.tls == Tls(passthrough=True, hosts=("a.example",))
    assert service.hosts == ("a.example",)
    assert service.slow_path_reasons == ("tls_passthrough",)


def test_a_cache_has_no_room_for_an_object_larger_than_itself() -> None:
    assert one("cache_enabled: true, cache_max_size: 65536").cache == Cache(
        max_bytes=65536, max_object_bytes=65536
    )


def test_a_service_that_needs_http_cannot_be_made_without() -> None:
    asks = (
        Service(name="a", listen=(HERE,), backends=(), http=Http(), auth=Auth(type=AuthType.JWT)),
        Service(name="a", listen=(HERE,), backends=(), http=Http(), tls=Tls()),
        Service(name="a", listen=(HERE,), backends=(), http=Http(), websocket=True),
        Service(name="a", listen=(HERE,), backends=(), http=Http(), cache=Cache()),
    )
    for service in asks:
        with pytest.raises(ValueError, match="need http"):
            Service(
                name="a",
                listen=service.listen,
                backends=(Backend(endpoint=HERE),),
                auth=service.auth,
                tls=service.tls,
                websocket=service.websocket,
                cache=service.cache,
            )


def test_what_cannot_be_read_as_http_has_none() -> None:
    for protocol, tls in ((Protocol.UDP, None), (Protocol.TCP, Tls(passthrough=True))):
        with pytest.raises(ValueError, match="can be read as HTTP"):
            Service(name="a", protocol=protocol, listen=(HERE,), backends=(), tls=tls, http=Http())


def test_tls_that_is_passed_through_has_nothing_to_end_it_with() -> None:
    certificates = (Certificate(certificate="/c.pem"),)
    with pytest.raises(ValueError, match="passed through has no certificates"):
        Tls(passthrough=True, certificates=certificates)
    with pytest.raises(ValueError, match="passed through has no certificates"):
        Tls(passthrough=True, client_ca="/ca.pem")
    with pytest.raises(ValueError, match="are those of http"):
        Tls(certificates=certificates, hosts=("a.example",))


def test_what_is_printed_of_a_service_reads_back() -> None:
    config = read(EVERYTHING)
    (printed,) = render_services(config)
    asked = [line.split(":")[0].strip(" -") for line in EVERYTHING.splitlines() if line.startswith("  ")]
    shown = dict(printed.values)
    names = [one.attribute for one in declared(ServiceKeys)]
    assert set(shown) <= set(names)
    keys = [key for key in names if key in asked and key not in ("listen", "backends")]
    assert keys
    text = "- name: web\n  listen: 8443\n  backends: [10.0.0.1:80]\n"
    for key in keys:
        lines = "".join(f"    {line}\n" for line in shown[key].splitlines())
        text += f"  {key}: |-\n{lines}"
    assert read(text).services == config.services


def test_only_what_acts_on_a_service_is_printed() -> None:
    (plain,) = render_services(read("- {name: a, ip: 10.0.0.1, port: 80}\n"))
    shown = dict(plain.values)
    assert (shown["http"], shown["tls_enabled"], shown["auth_type"]) == ("false", "false", "none")
    assert not {"hosts", "retries", "tls_certificate", "cache_ttl", "auth_keys"} & set(shown)
    (passed,) = render_services(read(f"- {{name: a, ip: 10.0.0.1, port: 80, {PASSED}}}\n"))
    assert dict(passed.values)["hosts"] == "any"
    assert dict(passed.values)["tls_passthrough"] == "true"


def test_each_of_these_keys_changes_the_service_at_a_reload() -> None:
    old = read(EVERYTHING)
    assert diff(old, read("# moved\n" + EVERYTHING)).is_empty
    lines = EVERYTHING.splitlines(keepends=True)
    left_out = ("websocket", "max_waiting", "retry_budget", "tls_min_version", "auth_leeway", "cache_vary")
    for key in left_out:
        new = read("".join(line for line in lines if not line.startswith(f"  {key}:")))
        assert diff(old, new).changed == ("web",), key
