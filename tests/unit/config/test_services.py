"""Services of a rules file: shapes, defaults, and the text of each error."""

from __future__ import annotations

from pathlib import Path

import pytest

from marchproxy_core.config import Config, load_text, render_services
from marchproxy_core.config.choices import TIER_NAMES
from marchproxy_core.errors import ConfigError
from marchproxy_core.services import (
    AuthType,
    Backend,
    Balance,
    Cache,
    Certificate,
    Endpoint,
    HealthCheck,
    HealthCheckKind,
    Protocol,
    ProxyHeader,
    ProxyProtocol,
    Service,
    Tls,
)

GUIDE = """\
# Fast-path rule (XDP/eBPF)
- service: "simple-tcp"
  ip: "10.0.1.100"
  port: 8080
  protocol: "tcp"
  auth_type: "none"          # No authentication
  tls_enabled: false         # No TLS termination

# Slow-path rule (Go application)
- service: "complex-web"
  ip: "10.0.1.200"
  port: 443
  protocol: "tcp"
  auth_type: "jwt"           # Requires authentication
  tls_enabled: true          # TLS termination
  websocket: true            # WebSocket support
"""


def read(text: str, environ: dict[str, str] | None = None) -> Config:
    return load_text(text.encode(), Path("f.yaml"), environ or {}, TIER_NAMES)


def one(keys: str) -> Service:
    return read(f"- {{name: web, {keys}}}\n").services[0]


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


def endpoints(*texts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint.parse(text) for text in texts)


def test_the_two_rules_of_the_guide_load_word_by_word() -> None:
    config = read(GUIDE)
    simple, web = config.services
    assert (simple.name, simple.origin, simple.slow_path_reasons) == ("simple-tcp", "f.yaml:2", ())
    assert simple.listen == endpoints("0.0.0.0:8080", "[::]:8080")
    assert [backend.endpoint for backend in simple.backends] == list(endpoints("10.0.1.100:8080"))
    assert web.auth.type is AuthType.JWT
    assert web.slow_path_reasons == ("auth_type is jwt", "tls_enabled", "websocket")
    assert config.notes == (
        "f.yaml:10: service complex-web: auth_type jwt has no auth_keys and no auth_jwks_url, "
        "so no token can be checked",
        "f.yaml:10: service complex-web: tls_enabled has no tls_certificate, "
        "so no TLS connection can be accepted",
        "f.yaml:2: service simple-tcp listens on 0.0.0.0:8080, the admin API on 127.0.0.1:8080: "
        "connections to that address go to the admin API; ADMIN_LISTEN moves it",
    )


def test_a_list_and_services_say_the_same() -> None:
    indented = "services:\n" + "".join(f"  {line}\n" for line in GUIDE.splitlines())
    assert read(indented).services == read(GUIDE).services


@pytest.mark.parametrize(
    ("listen", "want"),
    [
        ("81", ("0.0.0.0:81", "[::]:81")),
        ("':81'", ("0.0.0.0:81", "[::]:81")),
        ("127.0.0.1:81", ("127.0.0.1:81",)),
        ("'[::1]:81'", ("[::1]:81",)),
        ("[82, '0.0.0.0:82', '[::1]:81']", ("0.0.0.0:82", "[::]:82", "[::1]:81")),
        ("'81, 127.0.0.1:82'", ("0.0.0.0:81", "[::]:81", "127.0.0.1:82")),
    ],
)
def test_listen_takes_one_or_several(listen: str, want: tuple[str, ...]) -> None:
    assert one(f"ip: 10.0.0.1, port: 80, listen: {listen}").listen == endpoints(*want)


def test_backends_take_the_port_of_the_service() -> None:
    service = one("port: 80, backends: [10.0.0.1:81, {ip: 'fd00::1'}, {ip: 10.0.0.3, port: 83, weight: 0}]")
    assert [(str(b.endpoint), b.weight) for b in service.backends] == [
        ("10.0.0.1:81", 1),
        ("[fd00::1]:80", 1),
        ("10.0.0.3:83", 0),
    ]


def test_flush_wins_over_a_weight() -> None:
    first, second, third = one(
        "port: 80, backends: [{ip: 10.0.0.1, weight: 5, flush: yes}, {ip: 10.0.0.2, weight: 5, flush: no}, "
        "{ip: 10.0.0.3, flush: true}]"
    ).backends
    assert (first.weight, first.flush) == (third.weight, third.flush) == (0, True)
    assert (second.weight, second.flush) == (5, False)
    with pytest.raises(ValueError, match="a backend that is flushed has weight 0"):
        Backend(endpoint=second.endpoint, flush=True)


def test_everything_that_a_service_may_say() -> None:
    service = one(
        "listen: ':443', backends: [10.0.0.1:80], balance: maglev, websocket: yes, tier: application, "
        "health_check: {type: http, interval: 5s, timeout: 500ms, rise: 1, fall: 2, port: 9, path: /up, "
        "host: a.example, expect_status: 204}, auth_type: jwt, auth_issuer: me, auth_audience: [a, b], "
        "auth_keys: /k.pem, auth_jwks_url: 'https://a.example/keys', tls_enabled: true, tls_certificate: c.pem, "
        "tls_key: k.pem, tls_client_ca: ca.pem, proxy_protocol: {send: v2, accept: true}, cache_enabled: true, "
        "cache_ttl: 300, cache_vary: ['Authorization', 'Content-Type'], max_connections: 5, connection_rate: 0.5"
    )
    assert service.health_check == HealthCheck(
        kind=HealthCheckKind.HTTP,
        interval_s=5.0,
        timeout_s=0.5,
        rise=1,
        fall=2,
        port=9,
        path="/up",
        host="a.example",
        expect_status=(204, 204),
    )
    assert (service.auth.issuer, service.auth.audience, service.auth.keys) == ("me", ("a", "b"), ("/k.pem",))
    assert service.auth.jwks_url == "https://a.example/keys"
    assert service.tls == Tls(
        certificates=(Certificate(certificate="c.pem", key="k.pem"),), client_ca="ca.pem"
    )
    assert service.proxy_protocol == ProxyProtocol(send=ProxyHeader.V2, accept=True)
    assert service.cache == Cache(ttl_s=300.0, vary=("Authorization", "Content-Type"))
    assert (service.balance, service.websocket, service.tier) == (Balance.MAGLEV, True, "application")
    assert (service.max_connections, service.connection_rate) == (5, 0.5)


@pytest.mark.parametrize(
    ("word", "want"),
    [
        ("true", HealthCheck()),
        ("tcp", HealthCheck()),
        ("http", HealthCheck(kind=HealthCheckKind.HTTP)),
        ("false", None),
        ("off", None),
        ("", None),
    ],
)
def test_a_health_check_in_a_word(word: str, want: HealthCheck | None) -> None:
    assert one(f"ip: 10.0.0.1, port: 80, health_check: {word}").health_check == want


@pytest.mark.parametrize(
    ("word", "want"), [("v1", ProxyHeader.V1), ("v2", ProxyHeader.V2), ("off", ProxyHeader.OFF)]
)
def test_the_proxy_protocol_in_a_word(word: str, want: ProxyHeader) -> None:
    assert one(f"ip: 10.0.0.1, port: 80, proxy_protocol: {word}").proxy_protocol == ProxyProtocol(send=want)


LISTEN = (
    "listen addresses (PORT, :PORT, IP:PORT, [IPV6]:PORT), each once, separated by commas or as a YAML list"
)
LOOP = "as listen address and backend, want a listen address other than the backend's own"
NOT_UDP = "got it with protocol udp, want protocol tcp, or the key left out"


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        ("port: http, ip: 10.0.0.1", 'port: got "http", want an integer from 1 to 65535'),
        ("port: 80, ip: a.example", 'ip: got "a.example", want the IPv4 or IPv6 address of a server'),
        ("port: 80, ip: 0.0.0.0", "ip: got 0.0.0.0, want the IPv4 or IPv6 address of a server"),
        ("port: 80", "ip: got nothing, want ip and port of the service, or backends"),
        ("ip: 10.0.0.1", "port: got nothing, want ip and port of the service, or backends"),
        ("backends: [10.0.0.1:80]", "listen: got nothing, want listen, or the port of the service"),
        (
            "port: 80, backends: []",
            "backends: got an empty list, want a list of backends, each IP:PORT or a mapping with ip, port, weight "
            "and flush",
        ),
        (
            "port: 80, backends: [web]",
            'backends[0]: got "web", want IP:PORT, or a mapping with ip, port, weight and flush',
        ),
        ("port: 80, backends: [{port: 8}]", "backends[0].ip: got nothing, want the backend's address"),
        (
            "listen: 80, backends: [{ip: 10.0.0.1}]",
            "backends[0].port: got nothing, want a port, here or of the service",
        ),
        (
            "port: 80, backends: [10.0.0.1:1, {ip: 10.0.0.2, port: 0}]",
            "backends[1].port: got 0, want an integer from 1 to 65535",
        ),
        (
            "port: 80, backends: [10.0.0.1:1, 10.0.0.1:1]",
            "backends[1]: got 10.0.0.1:1 again, want each backend once",
        ),
        (
            "port: 80, backends: [{ip: 10.0.0.1, weight: 65536}]",
            "backends[0].weight: got 65536, want an integer from 0 to 65535",
        ),
        (
            "port: 80, backends: [{ip: 10.0.0.1, flush: now}]",
            'backends[0].flush: got "now", want true or false (or on, off, yes, no, 1, 0)',
        ),
        (
            "port: 80, backends: [10.0.0.1:1 flush]",
            'backends[0]: got "10.0.0.1:1 flush", want IP:PORT, or a mapping with ip, port, weight and flush',
        ),
        (
            "port: 80, backends: [{ip: 10.0.0.1, flsh: 1}]",
            "backends[0].flsh: want a known name; did you mean flush?",
        ),
        ("port: 80, ip: 10.0.0.1, weigth: 1", "weigth: want a known name"),
        ("port: 80, ip: 10.0.0.1, protocl: udp", "protocl: want a known name; did you mean protocol?"),
        ("port: 80, ip: 10.0.0.1, service: x", "name: got it again as service, want it once"),
        ("port: 80, ip: 10.0.0.1, tier: xpd", 'tier: got "xpd", want the name of a tier; did you mean xdp?'),
        (
            "port: 80, ip: 10.0.0.1, listen: 224.0.0.1:80",
            f'listen: got "224.0.0.1:80", want {LISTEN}',
        ),
        ("port: 80, ip: 10.0.0.1, listen: []", "listen: got no address, want at least one"),
        (
            "port: 80, ip: 127.0.0.1",
            f"listen: got 127.0.0.1:80 {LOOP}",
        ),
        (
            "port: 80, ip: 10.0.0.1, listen: 10.0.0.1:80",
            f"listen: got 10.0.0.1:80 {LOOP}",
        ),
        (
            "port: 80, ip: 10.0.0.1, health_check: ping",
            'health_check: got "ping", want a mapping, or one of true, false, tcp, http',
        ),
        (
            "port: 80, ip: 10.0.0.1, health_check: {timeout: 3}",
            "health_check.timeout: got 3 seconds with an interval of 2, want a timeout not above the interval",
        ),
        (
            "port: 80, ip: 10.0.0.1, health_check: {path: up}",
            'health_check.path: got "up", want a path that begins with / and has no spaces',
        ),
        (
            "port: 80, ip: 10.0.0.1, health_check: {expect_status: 700}",
            "health_check.expect_status: got 700, want a status or a range as 200-399, from 100 to 599",
        ),
        (
            "port: 80, ip: 10.0.0.1, protocol: udp, health_check: tcp",
            "health_check.port: got nothing, want a TCP port to check, since UDP itself gives no sign of life",
        ),
        (
            "port: 80, ip: 10.0.0.1, protocol: udp, tls_enabled: true",
            f"tls_enabled: {NOT_UDP}",
        ),
        (
            "port: 80, ip: 10.0.0.1, protocol: udp, websocket: true",
            f"websocket: {NOT_UDP}",
        ),
        (
            "port: 80, ip: 10.0.0.1, protocol: udp, cache_enabled: true",
            f"cache_enabled: {NOT_UDP}",
        ),
        (
            "port: 80, ip: 10.0.0.1, protocol: udp, auth_type: jwt",
            f"auth_type: {NOT_UDP}",
        ),
        (
            "port: 80, ip: 10.0.0.1, protocol: udp, proxy_protocol: v2",
            f"proxy_protocol: {NOT_UDP}",
        ),
    ],
)
def test_errors_of_one_service(keys: str, want: str) -> None:
    assert errors(f"- {{name: web, {keys}}}\n") == [f"f.yaml:1: services[0].{want}"]


def test_a_name_that_does_not_fit_a_label() -> None:
    assert errors("- {name: a b, ip: 10.0.0.1, port: 80}\n") == [
        'f.yaml:1: services[0].name: got "a b", want a name of letters, digits, . _ and -, at most 63'
    ]


def test_udp_may_say_what_it_does_not_ask_for() -> None:
    service = one(
        "ip: 10.0.0.1, port: 53, protocol: udp, tls_enabled: false, proxy_protocol: off, auth_type: none"
    )
    assert service.protocol is Protocol.UDP


def test_two_services_of_one_name() -> None:
    text = "- {name: a, ip: 10.0.0.1, port: 1}\n- {name: a, ip: 10.0.0.1, port: 2}\n"
    assert errors(text) == ["f.yaml:2: name: got a again, want a name of its own; the first is at f.yaml:1"]


def test_two_services_on_one_address() -> None:
    text = "- {name: a, ip: 10.0.0.1, port: 1}\n- {name: b, ip: 10.0.0.2, port: 1, listen: 0.0.0.0:1}\n"
    assert errors(text) == [
        "f.yaml:2: service b: listen: got tcp 0.0.0.0:1 as a has it (f.yaml:1), want an address of its own"
    ]


def test_every_address_and_one_address_go_together_and_so_do_tcp_and_udp() -> None:
    text = (
        "- {name: a, ip: 10.0.0.1, port: 53}\n"
        "- {name: b, ip: 10.0.0.2, port: 53, listen: 127.0.0.2:53}\n"
        "- {name: c, ip: 10.0.0.2, port: 53, protocol: udp}\n"
    )
    assert [service.name for service in read(text).services] == ["a", "b", "c"]


def test_a_service_on_the_admin_address() -> None:
    assert errors("- {name: a, ip: 10.0.0.1, port: 1, listen: 127.0.0.1:8080}\n") == [
        "f.yaml:1: ADMIN_LISTEN: got 127.0.0.1:8080 as service a has it (f.yaml:1), want an address of its own"
    ]


def test_prefixes_of_a_service_and_what_is_wrong_with_them() -> None:
    service = one("ip: 10.0.0.1, port: 80, block: [198.51.100.0/24, '2001:db8::/32'], allow: 198.51.100.7")
    assert list(map(str, service.block)) == ["198.51.100.0/24", "2001:db8::/32"]
    assert list(map(str, service.allow)) == ["198.51.100.7/32"]
    assert errors("- {name: web, ip: 10.0.0.1, port: 80, block: 198.51.100.7/24}\n") == [
        'f.yaml:1: services[0].block: got "198.51.100.7/24", want IPv4 or IPv6 prefixes as 192.0.2.0/24, or addresses, '
        "each once, separated by commas or as a YAML list; did you mean 198.51.100.0/24?"
    ]
    assert errors("- {name: web, ip: 10.0.0.1, port: 80, block: 10.0.0.0/8, allow: 10.0.0.0/8}\n") == [
        "f.yaml:1: services[0].allow: got 10.0.0.0/8 as in block, want each prefix in one of the two"
    ]


def test_notes_of_a_service() -> None:
    config = read(
        "- {name: a, port: 1, backends: [{ip: 10.0.0.1, weight: 0}], cache_ttl: 5, tls_key: k,\n"
        "   health_check: {path: /x}}\n"
    )
    assert config.notes == (
        "f.yaml:1: service a: path of health_check only act with type: http",
        "f.yaml:1: service a: tls_key does nothing without tls_enabled: true",
        "f.yaml:1: service a: cache_ttl does nothing without cache_enabled: true",
        "f.yaml:1: service a: every backend has weight 0, so it takes no new connections",
    )


def test_a_note_when_every_backend_is_flushed_or_drained() -> None:
    config = read(
        "- {name: a, port: 1, backends: [{ip: 10.0.0.1, weight: 0}, {ip: 10.0.0.2, flush: true}]}\n"
        "- {name: b, port: 2, backends: [{ip: 10.0.0.1, weight: 1}, {ip: 10.0.0.2, flush: true}]}\n"
    )
    assert config.notes == (
        "f.yaml:1: service a: every backend has weight 0 or is flushed, so it takes no new connections",
    )


def test_a_tier_that_is_not_installed_is_a_note() -> None:
    config = load_text(b"- {name: a, ip: 10.0.0.1, port: 1, tier: xdp}\n", Path("f.yaml"), {}, ("sockets",))
    assert config.services[0].tier == "xdp"
    assert config.notes == ("f.yaml:1: service a: tier xdp is not installed, so nothing can carry it",)


def test_lines_are_those_of_the_value() -> None:
    backends = "  backends:\n  - ip: 10.0.0.1\n    weight: 1\n  - ip: 10.0.0.2\n    port: x\n"
    text = f"services:\n- name: a\n  port: 1\n{backends}"
    assert errors(text) == [
        'f.yaml:8: services[0].backends[1].port: got "x", want an integer from 1 to 65535'
    ]


def test_aliases_serve_as_templates() -> None:
    text = "- &a {name: a, ip: 10.0.0.1, port: 1, balance: random}\n- {<<: *a, name: b, port: 2}\n"
    assert [(s.name, s.listen[0].port, s.balance) for s in read(text).services] == [
        ("a", 1, Balance.RANDOM),
        ("b", 2, Balance.RANDOM),
    ]


def test_services_are_printed_with_their_origin() -> None:
    (printed, _) = render_services(read(GUIDE))
    assert (printed.name, printed.origin) == ("simple-tcp", "f.yaml:2")
    assert dict(printed.values)["listen"] == "0.0.0.0:8080, [::]:8080"


def test_backends_are_printed_with_their_weight_and_whether_they_are_flushed() -> None:
    text = "- {name: a, port: 1, backends: [{ip: 10.0.0.1, weight: 3}, {ip: 10.0.0.2, weight: 3, flush: true}]}\n"
    (printed,) = render_services(read(text))
    assert dict(printed.values)["backends"] == "10.0.0.1:1 weight 3, 10.0.0.2:1 weight 0 flush"
