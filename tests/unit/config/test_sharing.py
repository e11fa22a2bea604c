"""Which services may have the same listen address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from marchproxy_core.config import load_text
from marchproxy_core.config.choices import TIER_NAMES
from marchproxy_core.errors import ConfigError
from marchproxy_core.packet.classifying import obstacle

if TYPE_CHECKING:
    from marchproxy_core.services import Service

PASSED = "tls_enabled: true, tls_passthrough: true"
ENDED = "tls_enabled: true, tls_certificate: c.pem"
OWN = "an address of its own"
CLAIM = "a host and path of its own, or an address"
TLS = "tls_enabled: true, tls_certificate: c.pem, tls_client_ca: ca.pem"
SAME_TLS = f"{OWN}, or the same tls_client_ca, tls_client_auth and tls_min_version in both"


def read(*services: str) -> tuple[Service, ...]:
    lines = (
        f"- {{name: {name}, ip: 10.0.0.1, port: 80, {keys}}}\n"
        for name, keys in zip("abcd", services, strict=False)
    )
    return load_text("".join(lines).encode(), Path("f.yaml"), {}, TIER_NAMES).services


@pytest.mark.parametrize(
    "services",
    [
        ("hosts: a.example", "hosts: b.example", "http: true"),
        ("hosts: a.example", "hosts: '*.example'", "hosts: '*.a.example'"),
        ("path: /a", "path: /b", "path: /a/b", "path: /"),
        ("path: /a", "path: /a/"),
        ("hosts: a.example", "hosts: a.example, path: /b"),
        ("hosts: a.example, websocket: true", "hosts: b.example, auth_type: jwt", "cache_enabled: true"),
        (f"{ENDED}, hosts: a.example", f"{ENDED}, hosts: b.example"),
        (f"{PASSED}, hosts: a.example", f"{PASSED}, hosts: b.example", PASSED),
        (f"{PASSED}, hosts: a.example", f"{ENDED}, hosts: b.example, path: /x", f"{ENDED}, hosts: b.example"),
        (f"{TLS}, hosts: a.example", f"{TLS}, hosts: b.example", f"{PASSED}, hosts: c.example"),
    ],
)
def test_services_that_are_told_apart_share_an_address(services: tuple[str, ...]) -> None:
    found = read(*services)
    assert len(found) == len(services)
    assert len({service.listen for service in found}) == 1
    for service in found:
        assert obstacle(service), "no packet tier may take it: it would take the others' clients too"


@pytest.mark.parametrize(
    ("first", "second", "claim", "want"),
    [
        ("balance: random", "balance: maglev", "", OWN),
        ("http: true", "balance: maglev", "", OWN),
        ("balance: random", "hosts: a.example", "", OWN),
        (PASSED, "balance: random", "", OWN),
        ("http: true", "hosts: a.example, " + ENDED, "", f"{OWN}, or tls_enabled in both or in neither"),
        ("http: true", "hosts: a.example, " + PASSED, "", f"{OWN}, or tls_enabled in both or in neither"),
        (
            "http: true",
            "hosts: a.example, proxy_protocol: {accept: true}",
            "",
            f"{OWN}, or the same proxy_protocol.accept in both",
        ),
        (TLS, f"hosts: a.example, {ENDED}", "", SAME_TLS),
        (TLS, f"hosts: a.example, {TLS}, tls_client_auth: optional", "", SAME_TLS),
        (TLS, f"hosts: a.example, {TLS}, tls_min_version: 1.3", "", SAME_TLS),
        ("http: true", "hosts: a.example, tier: application", "", f"{OWN}, or the same tier in both"),
        ("http: true", "http: true", "any host / on ", CLAIM),
        ("http: true", "websocket: true", "any host / on ", CLAIM),
        ("hosts: [a, b]", "hosts: [B, c, A], paths: [/x, /]", "a /, b / on ", CLAIM),
        ("hosts: a, paths: [/x, /y]", "hosts: a, paths: [/y, /z]", "a /y on ", CLAIM),
        (f"{PASSED}, hosts: a", f"{PASSED}, hosts: [a, b]", "a on ", CLAIM),
        (f"{PASSED}, hosts: a", f"{ENDED}, hosts: a, path: /x", "a on ", CLAIM),
        (f"{ENDED}, path: /x", PASSED, "any host on ", CLAIM),
    ],
)
def test_others_are_told_who_has_the_address(first: str, second: str, claim: str, want: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(first, second)
    assert [str(problem) for problem in caught.value.problems] == [
        f"f.yaml:2: service b: listen: got {claim}tcp 0.0.0.0:80 as a has it (f.yaml:1), want {want}"
    ]


def test_each_that_stands_in_the_way_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        read("hosts: a", "hosts: b", "hosts: [a, b]")
    assert [str(problem) for problem in caught.value.problems] == [
        f"f.yaml:3: service c: listen: got a / on tcp 0.0.0.0:80 as a has it (f.yaml:1), want {CLAIM}",
        f"f.yaml:3: service c: listen: got b / on tcp 0.0.0.0:80 as b has it (f.yaml:2), want {CLAIM}",
    ]


def test_services_that_share_no_address_may_claim_the_same() -> None:
    first, second = read("hosts: a, listen: 127.0.0.1:80", "hosts: a, listen: 127.0.0.2:80")
    assert first.hosts == second.hosts == ("a",)
