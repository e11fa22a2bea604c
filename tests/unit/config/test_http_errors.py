"""Keys about HTTP, TLS and authentication that are wrong, or do nothing: the text of each error and note."""

from __future__ import annotations

from pathlib import Path

import pytest

from marchproxy_core.config import Config, load_text
from marchproxy_core.config.choices import TIER_NAMES
from marchproxy_core.errors import ConfigError


def read(keys: str) -> Config:
    text = f"- {{name: web, ip: 10.0.0.1, port: 80, {keys}}}\n"
    return load_text(text.encode(), Path("f.yaml"), {}, TIER_NAMES)


def errors(keys: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(keys)
    start = "f.yaml:1: services[0]."
    return [str(problem).removeprefix(start) for problem in caught.value.problems]


def notes(keys: str) -> list[str]:
    start = "f.yaml:1: service web: "
    found = read(keys).notes
    return [note.removeprefix(start) for note in found]


NORMAL = (
    "paths that begin with /, in normal form (RFC 3986, section 6.2.2: no dot segments, nothing percent-encoded that "
    "need not be, encodings in capitals), without query, each once, separated by commas or as a YAML list"
)
ENDS = "got it with tls_passthrough, want TLS that ends here, or the key left out"
PASSED = "tls_enabled: true, tls_passthrough: true"


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        ("paths: [/a/../b]", f'paths: got "/a/../b", want {NORMAL}; did you mean /b?'),
        ("path: api", f'paths: got "api", want {NORMAL}'),
        ("paths: []", "paths: got no path, want at least one"),
        ("paths: [/a, /a]", f'paths: got "/a,/a", want {NORMAL}'),
        (
            "hosts: 'a.example:80'",
            'hosts: got "a.example:80", want hosts as example.com, *.example.com or [2001:db8::1], without a port, '
            "each once, separated by commas or as a YAML list; did you mean a.example?",
        ),
        (
            "request_header_set: 'Content-Length: 5'",
            'request_header_set: got "Content-Length: 5", want a header other than Content-Length, which says where a '
            "message ends or goes",
        ),
        (
            "request_header_remove: Host",
            'request_header_remove: got "Host", want a header other than Host, which says where a message ends or '
            "goes; host_header sets the host",
        ),
        (
            "request_header_set: ['X-A: 1', 'x-a: 2']",
            "request_header_set: got x-a more than once, want each header once",
        ),
        (
            "response_header_add: no",
            'response_header_add: got "no", want headers as Name: value in printable ASCII, each once, separated by '
            "line breaks or as a YAML list",
        ),
        (
            "client_request_rate: 1, client_key: 'claim:sub'",
            "client_key: got a claim without auth_type: jwt, want address, header:NAME, or auth_type: jwt",
        ),
        ("retries: 11", "retries: got 11, want an integer from 0 to 10"),
        (
            "retry_on: 500",
            "retry_on: got 500, want words of connect, reset, timeout, 502, 503, 504, each once, separated by commas "
            "or as a YAML list",
        ),
        ("access_log: 2", "access_log: got 2, want a number from 0 to 1, or on or off"),
        (
            "try_timeout: 5, request_timeout: 3",
            "try_timeout: got 5 seconds with a request_timeout of 3, want a time not above request_timeout",
        ),
        (
            "cache_enabled: true, cache_max_size: 65536, cache_max_object: 65537",
            "cache_max_object: got 65537 with a cache_max_size of 65536, want a size not above cache_max_size",
        ),
        (
            "tls_enabled: true, tls_certificate: [a, b], tls_key: k",
            "tls_key: got 1 with 2 in tls_certificate, want one key for each certificate, in the same order, or none "
            "where the certificates' files have them",
        ),
        (
            "auth_type: jwt, auth_algorithms: none",
            'auth_algorithms: got "none", want algorithms (HS256, HS384, HS512, the same with RS, PS and ES, EdDSA; as '
            "written here), each once, separated by commas or as a YAML list",
        ),
        (
            "auth_type: jwt, auth_forward_claims: ['sub: Host']",
            'auth_forward_claims: got "sub: Host", want a header other than Host, which says where a message ends or '
            "goes; host_header sets the host",
        ),
        (
            "auth_type: jwt, auth_forward_claims: ['sub: X-User', 'name: x-user']",
            "auth_forward_claims: got x-user more than once, want each header once",
        ),
        ("http: false, hosts: a", "http: got false with hosts, want true, or the key left out"),
        ("http: no, websocket: yes", "http: got false with websocket, want true, or the key left out"),
        (
            "tls_passthrough: true",
            "tls_passthrough: got true without tls_enabled, want tls_enabled: true, or the key left out",
        ),
        (f"{PASSED}, http: true", f"http: {ENDS}"),
        (f"{PASSED}, path: /a", f"paths: {ENDS}"),
        (f"{PASSED}, websocket: true", f"websocket: {ENDS}"),
        (f"{PASSED}, auth_type: jwt", f"auth_type: {ENDS}"),
        (f"{PASSED}, cache_enabled: true", f"cache_enabled: {ENDS}"),
        (f"{PASSED}, backend_tls: true", f"backend_tls: {ENDS}"),
        (f"{PASSED}, tls_client_ca: /ca.pem", f"tls_client_ca: {ENDS}"),
        (f"{PASSED}, tls_certificate: /c.pem", f"tls_certificate: {ENDS}"),
        *(
            (
                f"protocol: udp, {key}",
                f"{name}: got it with protocol udp, want protocol tcp, or the key left out",
            )
            for name, key in (
                ("http", "http: true"),
                ("hosts", "hosts: a"),
                ("retries", "retries: 1"),
                ("backend_tls", "backend_tls: true"),
            )
        ),
    ],
)
def test_errors_of_one_service(keys: str, want: str) -> None:
    assert errors(keys) == [want]


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        ("auth_leeway: 5", "auth_leeway does nothing without auth_type: jwt"),
        ("tls_min_version: 1.3", "tls_min_version does nothing without tls_enabled: true"),
        ("cache_max_object: 5", "cache_max_object does nothing without cache_enabled: true"),
        ("tls_client_auth: optional", "tls_client_auth does nothing without tls_client_ca"),
        ("http: true, strip_path: true", "strip_path does nothing without paths"),
        ("client_key: 'header:a'", "client_key does nothing without client_request_rate"),
        ("retries: 0, retry_budget: 1", "retry_budget does nothing without retries"),
        ("retry_on: timeout", "timeout in retry_on does nothing without try_timeout"),
        ("max_waiting: 5", "max_waiting does nothing without max_backend_connections"),
        ("backend_tls_name: a", "backend_tls_name does nothing without backend_tls: true"),
        (
            "backend_tls: true, backend_tls_key: /k",
            "backend_tls_key does nothing without backend_tls_certificate",
        ),
        (
            "backend_tls: true, backend_tls_verify: false",
            "backend_tls_verify is false, so anybody in between can be the backend",
        ),
    ],
)
def test_notes_of_one_service(keys: str, want: str) -> None:
    assert notes(keys) == [want]
