"""What a service asks for beyond carrying bytes, as the keys that say so. Pure; ``printing`` calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.config.declare import declared
from marchproxy_core.config.http_keys import HttpKeys
from marchproxy_core.config.tls_keys import ClientAuth
from marchproxy_core.services import AuthType, RetryOn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marchproxy_core.services import Auth, BackendTls, Cache, Http, Service, Tls


def http_values(service: Service) -> dict[str, str]:
    """The keys that act on a service, in the order of the reference, and what they are, defaults included."""
    auth, tls, cache, http = service.auth, service.tls, service.cache, service.http
    values: dict[str, object] = {
        "auth_type": auth.type,
        "tls_enabled": tls is not None,
        "websocket": service.websocket,
        "cache_enabled": cache is not None,
        "http": http is not None,
        "hosts": service.hosts,
        **(_auth(auth) if auth.type is not AuthType.NONE else {}),
        **(_tls(tls) if tls is not None else {}),
        **(_cache(cache) if cache is not None else {}),
        **(_http(http) if http is not None else {}),
    }
    if http is None and not (tls is not None and tls.passthrough):
        del values["hosts"]
    return {
        one.attribute: one.shown(values[one.attribute]) or one.default_doc or "none"
        for one in declared(HttpKeys)
        if one.attribute in values
    }


def _auth(auth: Auth) -> Mapping[str, object]:
    return {
        "auth_issuer": auth.issuer,
        "auth_audience": auth.audience,
        "auth_keys": auth.keys,
        "auth_jwks_url": auth.jwks_url,
        "auth_jwks_refresh": auth.jwks_refresh_s,
        "auth_algorithms": auth.algorithms,
        "auth_leeway": auth.leeway_s,
        "auth_required_claims": auth.required_claims,
        "auth_forward_claims": auth.forward_claims,
    }


def _tls(tls: Tls) -> Mapping[str, object]:
    if tls.passthrough:
        return {"tls_passthrough": True}
    keys = tuple(one.key for one in tls.certificates if one.key is not None)
    shown: dict[str, object] = {
        "tls_certificate": tuple(one.certificate for one in tls.certificates),
        "tls_key": keys,
        "tls_client_ca": tls.client_ca,
        "tls_min_version": tls.min_version,
        "tls_passthrough": False,
    }
    if tls.client_ca is not None:
        shown["tls_client_auth"] = ClientAuth.OPTIONAL if tls.client_optional else ClientAuth.REQUIRED
    return shown


def _cache(cache: Cache) -> Mapping[str, object]:
    return {
        "cache_ttl": cache.ttl_s,
        "cache_vary": cache.vary,
        "cache_max_size": cache.max_bytes,
        "cache_max_object": cache.max_object_bytes,
    }


def _http(http: Http) -> Mapping[str, object]:
    return {
        "paths": http.paths,
        "strip_path": http.strip_path,
        "host_header": http.host_header,
        "request_header_remove": http.request_headers.remove,
        "request_header_set": http.request_headers.set,
        "request_header_add": http.request_headers.add,
        "response_header_remove": http.response_headers.remove,
        "response_header_set": http.response_headers.set,
        "response_header_add": http.response_headers.add,
        "compression": http.compression,
        "access_log": http.access_log,
        "request_timeout": http.request_timeout_s,
        "request_rate": http.request_rate,
        "client_request_rate": http.client_request_rate,
        "client_key": http.client_key,
        "max_requests": http.max_requests,
        "max_header_bytes": http.max_header_bytes,
        "max_headers": http.max_headers,
        "max_body_bytes": http.max_body_bytes,
        "min_client_rate": http.min_client_rate,
        "retries": http.retry.most,
        "retry_on": tuple(one for one in RetryOn if one in http.retry.on),
        "retry_budget": http.retry.budget,
        "try_timeout": http.retry.try_timeout_s,
        "max_backend_connections": http.max_backend_connections,
        "max_waiting": http.max_waiting,
        "backend_protocol": http.backend_protocol,
        "backend_tls": http.backend_tls is not None,
        **(_backend_tls(http.backend_tls) if http.backend_tls is not None else {}),
    }


def _backend_tls(tls: BackendTls) -> Mapping[str, object]:
    return {
        "backend_tls_verify": tls.verify,
        "backend_tls_ca": tls.ca,
        "backend_tls_name": tls.name,
        "backend_tls_certificate": tls.certificate,
        "backend_tls_key": tls.key,
    }
