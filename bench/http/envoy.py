"""How Envoy is configured for one HTTP service: as the other peers, see bench/http/configurations.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bench.http import programs
from bench.http.configurations import ACCESS_LOG, shape_of
from bench.http.shape import Certificate

if TYPE_CHECKING:
    from bench.configurations import Service

_TYPE = "type.googleapis.com/envoy.extensions"
_METRICS_PORT = 9180
_IDLE_S = 600
_MOST = 10**6


def configure(directory: Path, service: Service) -> list[str]:
    """Envoy's HTTP connection manager and router, with a static cluster; metrics are at its admin address."""
    shape = shape_of(service)
    front = {"address": service.front, "port_value": service.port}
    chain: dict[str, object] = {"filters": [{"name": "http", "typed_config": _manager(directory)}]}
    if shape.tls:
        chain["transport_socket"] = _tls(Certificate.below(directory))
    listener = {
        "name": "service",
        "address": {"socket_address": front},
        "tcp_backlog_size": 4096,
        "filter_chains": [chain],
    }
    admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": _METRICS_PORT}}}
    cluster = _cluster(service.backend, shape.backend_port)
    whole = {"admin": admin, "static_resources": {"listeners": [listener], "clusters": [cluster]}}
    file = directory / "envoy.json"
    file.write_text(json.dumps(whole, indent=1))
    argv = [str(programs.find("envoy")), "--concurrency", str(shape.workers), "--disable-hot-restart"]
    return [*argv, "-l", "error", "-c", str(file)]


def _manager(directory: Path) -> dict[str, object]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
    log = {"@type": f"{_TYPE}.access_loggers.file.v3.FileAccessLog", "path": str(directory / ACCESS_LOG)}
    return {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "service",
        "codec_type": "AUTO",
        "stream_idle_timeout": f"{_IDLE_S}s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": [{"name": "file", "typed_config": log}],
        "route_config": {"virtual_hosts": [{"name": "service", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}}
        ],
    }


def _tls(own: Certificate) -> dict[str, object]:
    pair = {
        "certificate_chain": {"filename": str(own.certificate)},
        "private_key": {"filename": str(own.key)},
    }
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
        "tls_certificates": [pair],
        "alpn_protocols": ["h2", "http/1.1"],
    }
    config = {
        "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": common,
    }
    return {"name": "tls", "typed_config": config}


def _cluster(backend: str, port: int) -> dict[str, object]:
    address = {"socket_address": {"address": backend, "port_value": port}}
    # The defaults let 1024 of each through.
    limits = {"max_connections": _MOST, "max_pending_requests": _MOST, "max_requests": _MOST}
    return {
        "name": "backend",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
