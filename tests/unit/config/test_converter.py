"""Values to JSON and back."""

from __future__ import annotations

import ipaddress
import json

import cattrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.config import AfXdpMode, Enable, LogLevel, Settings, UnixAddress
from marchproxy_core.config.converter import dump_service, dump_settings, load_service, load_settings
from marchproxy_core.services import (
    Auth,
    AuthType,
    Backend,
    BackendTls,
    Balance,
    Cache,
    Certificate,
    Compression,
    Endpoint,
    HeaderRules,
    HealthCheck,
    HealthCheckKind,
    Http,
    HttpVersion,
    Protocol,
    ProxyHeader,
    ProxyProtocol,
    Retry,
    RetryOn,
    Service,
    Tls,
    TlsVersion,
)

ADDRESSES = st.ip_addresses()
PREFIXES = st.builds(ipaddress.ip_network, ADDRESSES)
ENDPOINTS = st.builds(Endpoint, ADDRESSES, st.integers(0, 65535))
TEXTS = st.text(max_size=10)
RATES = st.none() | st.floats(0.001, 1e9)


def _services(more: dict[str, st.SearchStrategy[object]]) -> st.SearchStrategy[Service]:
    return st.builds(
        Service,
        name=TEXTS,
        listen=st.lists(ENDPOINTS, max_size=3).map(tuple),
        backends=st.lists(
            st.builds(Backend, endpoint=ENDPOINTS, weight=st.integers(0, 65535))
            | st.builds(Backend, endpoint=ENDPOINTS, weight=st.just(0), flush=st.booleans()),
            max_size=3,
        ).map(tuple),
        balance=st.sampled_from(Balance),
        health_check=st.none()
        | st.builds(
            HealthCheck,
            kind=st.sampled_from(HealthCheckKind),
            port=st.none() | st.integers(1, 65535),
            expect_status=st.tuples(st.integers(100, 599), st.integers(100, 599)),
        ),
        proxy_protocol=st.builds(ProxyProtocol, send=st.sampled_from(ProxyHeader), accept=st.booleans()),
        max_connections=st.none() | st.integers(1, 9),
        connection_rate=RATES,
        tier=st.none() | TEXTS,
        block=st.lists(PREFIXES, max_size=2).map(tuple),
        origin=TEXTS,
        **more,
    )


NAMES = st.lists(TEXTS, max_size=2).map(tuple)
HEADERS = st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple)
RULES = st.builds(HeaderRules, set=HEADERS, add=HEADERS, remove=NAMES)
AUTH = st.builds(
    Auth, type=st.sampled_from(AuthType), audience=NAMES, algorithms=NAMES, forward_claims=HEADERS
)
CERTIFICATES = st.lists(st.builds(Certificate, certificate=TEXTS, key=st.none() | TEXTS), max_size=2)
TLS = st.builds(
    Tls,
    certificates=CERTIFICATES.map(tuple),
    client_ca=st.none() | TEXTS,
    client_optional=st.booleans(),
    min_version=st.sampled_from(TlsVersion),
)
HTTP = st.builds(
    Http,
    hosts=NAMES,
    paths=NAMES,
    strip_path=st.booleans(),
    host_header=st.none() | TEXTS,
    request_headers=RULES,
    response_headers=RULES,
    compression=st.lists(st.sampled_from(Compression), unique=True).map(tuple),
    retry=st.builds(
        Retry, on=st.frozensets(st.sampled_from(RetryOn)), try_timeout_s=st.none() | st.floats(0, 9)
    ),
    request_rate=RATES,
    access_log=st.floats(0, 1),
    backend_protocol=st.sampled_from(HttpVersion),
    backend_tls=st.none() | st.builds(BackendTls, ca=st.none() | TEXTS, verify=st.booleans()),
)
READ_AS_HTTP: dict[str, st.SearchStrategy[object]] = {
    "http": HTTP,
    "auth": AUTH,
    "tls": st.none() | TLS,
    "websocket": st.booleans(),
    "cache": st.none() | st.builds(Cache, ttl_s=st.floats(0, 100), vary=NAMES),
}
PASSED_THROUGH: dict[str, st.SearchStrategy[object]] = {
    "tls": st.builds(Tls, passthrough=st.just(True), hosts=NAMES)
}
PLAIN: dict[str, st.SearchStrategy[object]] = {"protocol": st.sampled_from(Protocol)}
SERVICES = st.one_of(*(_services(more) for more in (READ_AS_HTTP, PASSED_THROUGH, PLAIN)))
SETTINGS = st.builds(
    Settings,
    enable=st.dictionaries(TEXTS, st.sampled_from(Enable)),
    tier_order=st.lists(TEXTS, max_size=3).map(tuple),
    proxy_cpu_affinity=st.lists(st.integers(0, 9)).map(tuple),
    nat_port_range=st.none() | st.tuples(st.integers(1, 9), st.integers(9, 99)),
    nat_source_addresses=st.lists(ADDRESSES, max_size=2).map(tuple),
    max_memory_mb=st.none() | st.integers(16, 99),
    global_connection_rate=RATES,
    af_xdp_mode=st.none() | st.sampled_from(AfXdpMode),
    log_level=st.sampled_from(LogLevel),
    door_block=st.lists(PREFIXES, max_size=2).map(tuple),
    admin_listen=ENDPOINTS | st.just(UnixAddress("/run/m.sock")),
    admin_token=st.none() | TEXTS,
)


@given(SERVICES)
def test_services_come_back_from_json(service: Service) -> None:
    again = load_service(json.loads(json.dumps(dump_service(service))))
    assert again == service
    assert again.origin == service.origin


@given(SETTINGS)
def test_settings_come_back_from_json(settings: Settings) -> None:
    assert load_settings(json.loads(json.dumps(dump_settings(settings)))) == settings


def test_addresses_are_text() -> None:
    service = Service(
        name="a",
        listen=(Endpoint(ipaddress.ip_address("::1"), 1),),
        backends=(Backend(endpoint=Endpoint(ipaddress.ip_address("10.0.0.1"), 2)),),
    )
    dumped = dump_service(service)
    assert dumped["listen"] == ["[::1]:1"]
    assert dumped["backends"] == [{"endpoint": "10.0.0.1:2", "weight": 1, "flush": False}]


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(cattrs.BaseValidationError):
        load_settings(dump_settings(Settings()) | {"surprise": 1})


def test_a_dump_does_not_share_state_with_the_settings() -> None:
    settings = Settings(enable={"xdp": Enable.TRUE})
    dump_settings(settings)["enable"] = {}
    assert settings.enable == {"xdp": Enable.TRUE}
