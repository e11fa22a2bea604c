"""From the keys of one service to what it asks for beyond carrying bytes; ``http_checks`` has looked at them before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.config.http_checks import needs_http
from marchproxy_core.config.tls_keys import ClientAuth
from marchproxy_core.services import (
    Auth,
    AuthType,
    BackendTls,
    Cache,
    Certificate,
    HeaderRules,
    Http,
    Retry,
    Tls,
)

if TYPE_CHECKING:
    from marchproxy_core.config.findings import Findings


def build_auth(findings: Findings) -> Auth:
    """The service's authentication."""
    value = findings.value
    if value.auth_type is AuthType.NONE:
        return Auth()
    if not value.auth_keys and value.auth_jwks_url is None:
        findings.note("auth_type jwt has no auth_keys and no auth_jwks_url, so no token can be checked")
    return Auth(
        type=value.auth_type,
        issuer=value.auth_issuer,
        audience=value.auth_audience,
        keys=value.auth_keys,
        jwks_url=value.auth_jwks_url,
        algorithms=value.auth_algorithms,
        leeway_s=value.auth_leeway,
        required_claims=value.auth_required_claims,
        forward_claims=value.auth_forward_claims,
        jwks_refresh_s=value.auth_jwks_refresh,
    )


def build_tls(findings: Findings) -> Tls | None:
    """TLS of the service's clients."""
    value = findings.value
    if not value.tls_enabled:
        return None
    if value.tls_passthrough:
        return Tls(passthrough=True, hosts=value.hosts)
    if not value.tls_certificate:
        findings.note("tls_enabled has no tls_certificate, so no TLS connection can be accepted")
    keys = value.tls_key or (None,) * len(value.tls_certificate)
    return Tls(
        certificates=tuple(
            Certificate(certificate=certificate, key=key)
            for certificate, key in zip(value.tls_certificate, keys, strict=True)
        ),
        client_ca=value.tls_client_ca,
        client_optional=value.tls_client_ca is not None and value.tls_client_auth is ClientAuth.OPTIONAL,
        min_version=value.tls_min_version,
    )


def build_cache(findings: Findings) -> Cache | None:
    """The service's cache."""
    value = findings.value
    if not value.cache_enabled:
        return None
    return Cache(
        ttl_s=value.cache_ttl,
        vary=value.cache_vary,
        max_bytes=value.cache_max_size,
        max_object_bytes=min(value.cache_max_object, value.cache_max_size),
    )


def build_http(findings: Findings) -> Http | None:
    """What the service does with requests."""
    if not needs_http(findings):
        return None
    value = findings.value
    return Http(
        hosts=value.hosts,
        paths=value.paths,
        strip_path=value.strip_path,
        host_header=value.host_header,
        request_headers=HeaderRules(
            set=value.request_header_set,
            add=value.request_header_add,
            remove=value.request_header_remove,
        ),
        response_headers=HeaderRules(
            set=value.response_header_set,
            add=value.response_header_add,
            remove=value.response_header_remove,
        ),
        compression=value.compression,
        retry=Retry(
            most=value.retries,
            on=frozenset(value.retry_on),
            budget=value.retry_budget,
            try_timeout_s=value.try_timeout,
        ),
        request_timeout_s=value.request_timeout,
        request_rate=value.request_rate,
        client_request_rate=value.client_request_rate,
        client_key=value.client_key,
        max_requests=value.max_requests,
        max_backend_connections=value.max_backend_connections,
        max_waiting=value.max_waiting,
        max_header_bytes=value.max_header_bytes,
        max_headers=value.max_headers,
        max_body_bytes=value.max_body_bytes,
        min_client_rate=value.min_client_rate,
        access_log=value.access_log,
        backend_protocol=value.backend_protocol,
        backend_tls=_backend_tls(findings),
    )


def _backend_tls(findings: Findings) -> BackendTls | None:
    value = findings.value
    if not value.backend_tls:
        return None
    return BackendTls(
        ca=value.backend_tls_ca,
        verify=value.backend_tls_verify,
        name=value.backend_tls_name,
        certificate=value.backend_tls_certificate,
        key=value.backend_tls_key,
    )
