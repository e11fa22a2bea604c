"""Keys of one service that ask for HTTP, TLS or authentication: what cannot go together, what does nothing. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.config.declare import declared
from marchproxy_core.config.http_keys import CacheKeys, HttpKeys
from marchproxy_core.config.tls_keys import BackendTlsKeys, TlsKeys
from marchproxy_core.services import AuthType, Protocol, RetryOn

if TYPE_CHECKING:
    from marchproxy_core.config.findings import Findings


_HTTP_KEYS = tuple(
    one.attribute for one in (*declared(HttpKeys, CacheKeys), *declared(BackendTlsKeys, TlsKeys))
)
_ENDING_KEYS = ("tls_certificate", "tls_key", "tls_client_ca", "tls_client_auth", "tls_min_version")
_AUTH_KEYS = (
    "auth_issuer",
    "auth_audience",
    "auth_keys",
    "auth_jwks_url",
    "auth_algorithms",
    "auth_leeway",
    "auth_required_claims",
    "auth_forward_claims",
)
_BACKEND_TLS_KEYS = ("verify", "ca", "name", "certificate")
_NEEDS = {
    **dict.fromkeys(_AUTH_KEYS, "auth_type: jwt"),
    "auth_jwks_refresh": "auth_jwks_url",
    **dict.fromkeys((*_ENDING_KEYS[:3], "tls_min_version"), "tls_enabled: true"),
    "tls_client_auth": "tls_client_ca",
    **dict.fromkeys(("cache_ttl", "cache_vary", "cache_max_size", "cache_max_object"), "cache_enabled: true"),
    "strip_path": "paths",
    "client_key": "client_request_rate",
    "retry_on": "retries",
    "retry_budget": "retries",
    "max_waiting": "max_backend_connections",
    **{f"backend_tls_{key}": "backend_tls: true" for key in _BACKEND_TLS_KEYS},
    "backend_tls_key": "backend_tls_certificate",
}


def needs_http(findings: Findings) -> bool:
    """Whether the connections of the service are to be read as HTTP."""
    value = findings.value
    if value.tls_enabled and value.tls_passthrough:
        return False
    return (
        value.auth_type is not AuthType.NONE
        or value.tls_enabled
        or value.websocket
        or value.cache_enabled
        or any(map(findings.asked, _HTTP_KEYS))
    )


def check_http(findings: Findings) -> None:
    """Find keys that cannot go together."""
    _check_protocol(findings)
    _check_passthrough(findings)
    _check_certificates(findings)
    _check_requests(findings)
    value = findings.value
    if findings.given("http") and not value.http and not value.tls_passthrough:
        asking = [key for key in _HTTP_KEYS if findings.asked(key)]
        asking += [
            key for key in ("websocket", "cache_enabled", "auth_type", "tls_enabled") if _is_on(findings, key)
        ]
        if asking:
            findings.problem("http", f"false with {asking[0]}", "true, or the key left out")


def _is_on(findings: Findings, key: str) -> bool:
    return findings.asked(key) and getattr(findings.value, key) is not AuthType.NONE


def _check_protocol(findings: Findings) -> None:
    if findings.value.protocol is not Protocol.UDP:
        return
    proxy = findings.value.proxy_protocol
    asked = {key: _is_on(findings, key) for key in ("auth_type", "tls_enabled", "websocket", "cache_enabled")}
    asked["proxy_protocol"] = proxy is not None and proxy != type(proxy)()
    asked |= {key: findings.asked(key) for key in _HTTP_KEYS}
    for key, is_asked in asked.items():
        if is_asked:
            findings.problem(key, "it with protocol udp", "protocol tcp, or the key left out")


def _check_passthrough(findings: Findings) -> None:
    """Nobody is to believe that clients are checked, or requests are, that nobody here can read."""
    value = findings.value
    if not value.tls_passthrough:
        return
    if not value.tls_enabled:
        findings.problem(
            "tls_passthrough", "true without tls_enabled", "tls_enabled: true, or the key left out"
        )
        return
    keys = ("auth_type", "websocket", "cache_enabled", *_HTTP_KEYS, *_ENDING_KEYS)
    for key in keys:
        if key != "hosts" and _is_on(findings, key):
            findings.problem(key, "it with tls_passthrough", "TLS that ends here, or the key left out")


def _check_certificates(findings: Findings) -> None:
    value = findings.value
    if not value.tls_enabled or value.tls_passthrough:
        return
    certificates, keys = len(value.tls_certificate), len(value.tls_key)
    if keys and keys != certificates and not findings.keys.broken & {"tls_certificate", "tls_key"}:
        want = (
            "one key for each certificate, in the same order, or none where the certificates' files have them"
        )
        findings.problem("tls_key", f"{keys} with {certificates} in tls_certificate", want)


def _check_requests(findings: Findings) -> None:
    value = findings.value
    if findings.given("paths") and not value.paths:
        findings.problem("paths", "no path", "at least one")
    for key, lines in (
        ("request_header_set", value.request_header_set),
        ("response_header_set", value.response_header_set),
        ("auth_forward_claims", tuple((header, claim) for claim, header in value.auth_forward_claims)),
    ):
        names = [name.lower() for name, _ in lines]
        for name in sorted({name for name in names if names.count(name) > 1}):
            findings.problem(key, f"{name} more than once", "each header once")
    if value.client_key.startswith("claim:") and value.auth_type is AuthType.NONE:
        findings.problem(
            "client_key", "a claim without auth_type: jwt", "address, header:NAME, or auth_type: jwt"
        )
    one_try, all_tries = value.try_timeout, value.request_timeout
    if one_try is not None and all_tries is not None and one_try > all_tries:
        got = f"{one_try:g} seconds with a request_timeout of {all_tries:g}"
        findings.problem("try_timeout", got, "a time not above request_timeout")
    if findings.given("cache_max_object") and value.cache_max_object > value.cache_max_size:
        got = f"{value.cache_max_object} with a cache_max_size of {value.cache_max_size}"
        findings.problem("cache_max_object", got, "a size not above cache_max_size")


def note_unused(findings: Findings) -> None:
    """Note keys that do nothing without another."""
    for key, need in _NEEDS.items():
        name, _, word = need.partition(": ")
        is_on = _is_on(findings, name) if word else findings.asked(name)
        if name == "retries":
            is_on = findings.value.retries > 0
        if findings.given(key) and not is_on:
            findings.note(f"{key} does nothing without {need}")
    value = findings.value
    if value.retries and RetryOn.TIMEOUT in value.retry_on and value.try_timeout is None:
        findings.note("timeout in retry_on does nothing without try_timeout")
    if value.backend_tls and not value.backend_tls_verify:
        findings.note("backend_tls_verify is false, so anybody in between can be the backend")
