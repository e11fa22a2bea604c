"""The workloads: which server, which generator, and how their figures are read."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs

from bench import memory, outputs
from bench.configurations import Protocol, Service, most_connections
from bench.http.shape import Shape
from bench.metrics import WANTED_IDLE
from bench.peers import KERNEL_TIERS, Peer, prints_version
from bench.placing import BRAKE, WhenTight
from bench.readings import CpuShare, Measured
from bench.stage import Stage

_PROGRAMS = Path(__file__).parent / "programs"
_WARM_UP_S = 1.0
"""Before a turn counts. A peer may listen before it serves, and wrk, which corrects latencies for what it did not send
meanwhile (stats_correct, wrk 4.1), would make a p99 of that one wait. iperf3 omits a second by itself."""
_BULK_STREAMS = 4
_HTTP_CONNECTIONS = 64
_CLOSE = ("--header", "Connection: close")
_SHARED_THREADS = 2
"""Of wrk, and workers of the web server, where all share all CPUs: one thread of either would be the limit."""
_UDP_FLOWS = 16
_UDP_WINDOW = 8
_UDP_SIZE = 64


@attrs.frozen(kw_only=True)
class Workload:
    """One kind of traffic.

    Args:
        name: As in ``ONLY=`` and the JSON.
        protocol: Of the service that it needs.
        port: Of that service.
        server: Writes what the server needs into a directory and returns its command line.
        measure: Runs the generator against a stage for some seconds.
        when_tight: What to do where there are only two CPUs (bench/placing.py).
        brake: How much of its CPU a peer then loses, if it is braked.
        has_kernel_tiers: Whether MarchProxy's tiers in the kernel take part: not where proxies are braked, which would
            not slow them, nor where memory is measured, which they have none of for a connection.
    """

    name: str
    protocol: Protocol = "tcp"
    port: int
    server: Callable[[Path], list[str]]
    measure: Callable[[Stage, float], Awaitable[Measured]]
    when_tight: WhenTight = "share"
    brake: float = BRAKE
    has_kernel_tiers: bool = True
    http: Shape | None = None
    """What its service is asked for, where that is read as HTTP."""

    def takes(self, peer: Peer) -> bool:
        """Whether a peer takes part."""
        has_kernel_tiers = self.has_kernel_tiers or peer.tier not in KERNEL_TIERS
        return has_kernel_tiers and self.lacks(peer) is None

    def lacks(self, peer: Peer) -> str | None:
        """Return what a peer does not have that this needs."""
        if self.protocol not in peer.protocols:
            return f"it has no {self.protocol.upper()} proxy"
        return peer.without.get(self.name)

    def service(self, front: str, backend: str) -> Service:
        """Return the service that it needs, between these addresses."""
        return Service(protocol=self.protocol, front=front, backend=backend, port=self.port, http=self.http)


def idle_connections() -> int:
    """How many connections the memory workload holds: 10,000, or what the limit of open files admits here."""
    return min(WANTED_IDLE, most_connections())


def _iperf3_server(_directory: Path) -> list[str]:
    return ["iperf3", "--server", "--version4"]


def _web_server(directory: Path, *, workers: int = 1) -> list[str]:
    """A web server that answers from memory and never ends a connection by itself."""
    file = directory / "web.conf"
    file.write_text(f"""\
daemon off;
worker_processes {workers};
pid {directory}/web.pid;
events {{ worker_connections 16000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    server {{
        listen 8000 backlog=4096;
        location / {{ return 200 "ok\\n"; }}
    }}
}}
""")
    return ["nginx", "-p", str(directory), "-e", str(directory / "web.log"), "-c", str(file)]


_web_server_of_several = partial(_web_server, workers=_SHARED_THREADS)


def _own_server(program: str, port: int) -> Callable[[Path], list[str]]:
    def server(_directory: Path) -> list[str]:
        return [sys.executable, str(_PROGRAMS / program), "serve", str(port)]

    return server


async def _bulk(stage: Stage, seconds: float) -> Measured:
    # Several streams, so that a proxy has one to work on while another waits. Zero-copy: the sender gives pages of a
    # file instead of copying, which leaves the generator more room above the proxies.
    argv = [
        "iperf3",
        "--client",
        stage.target,
        "--port",
        str(stage.port),
        "--time",
        f"{seconds:.0f}",
        "--omit",
        "1",
    ]
    argv += ["--parallel", str(_BULK_STREAMS), "--zerocopy", "--json"]
    output, share = await stage.load(argv, seconds=seconds + 1)
    return Measured(values={"bulk_gbit_s": outputs.iperf3(output)}, cpu=share, command=" ".join(argv))


async def _requests(stage: Stage, seconds: float) -> Measured:
    share, read, command = await _run_wrk(stage, seconds)
    values = {"requests_s": read["rate"], "p50_us": read["p50_us"], "p99_us": read["p99_us"]}
    return Measured(values=values, cpu=share, command=command)


async def _connections(stage: Stage, seconds: float) -> Measured:
    share, read, command = await _run_wrk(stage, seconds, *_CLOSE)
    return Measured(values={"connections_s": read["rate"]}, cpu=share, command=command)


async def _shared_requests(stage: Stage, seconds: float) -> Measured:
    share, read, command = await _run_wrk(stage, seconds, threads=_SHARED_THREADS)
    values = {
        "shared_requests_s": read["rate"],
        "shared_p50_us": read["p50_us"],
        "shared_p99_us": read["p99_us"],
    }
    return Measured(values=values, cpu=share, command=command)


async def _shared_connections(stage: Stage, seconds: float) -> Measured:
    share, read, command = await _run_wrk(stage, seconds, *_CLOSE, threads=_SHARED_THREADS)
    return Measured(values={"shared_connections_s": read["rate"]}, cpu=share, command=command)


async def _latency(stage: Stage, seconds: float) -> Measured:
    await stage.keep_awake()
    share, read, command = await _run_wrk(stage, seconds, connections=1)
    values = {"rest_p50_us": read["p50_us"], "rest_p99_us": read["p99_us"]}
    return Measured(values=values, cpu=share, command=command)


async def _run_wrk(
    stage: Stage, seconds: float, *more: str, threads: int = 1, connections: int = _HTTP_CONNECTIONS
) -> tuple[CpuShare, dict[str, float], str]:
    """Run wrk, without ``more`` first for its warming up; return who used the CPUs, its report, its command line."""
    url = f"http://{stage.target}:{stage.port}/"
    argv = [
        "wrk",
        "--threads",
        str(threads),
        "--connections",
        str(connections),
        "--timeout",
        "5s",
        "--latency",
    ]
    await stage.run([*argv, "--duration", f"{_WARM_UP_S:.0f}s", url], deadline_s=_WARM_UP_S + 10)
    argv += ["--duration", f"{seconds:.0f}s", *more, url]
    output, share = await stage.load(argv, seconds=seconds)
    return share, outputs.wrk(output), " ".join(argv)


async def _udp(stage: Stage, seconds: float) -> Measured:
    await stage.run(_udp_traffic(stage, _WARM_UP_S), deadline_s=_WARM_UP_S + 10)
    argv = _udp_traffic(stage, seconds)
    output, share = await stage.load(argv, seconds=seconds)
    report = outputs.udp_traffic(output)
    return Measured(
        values={"packets_s": 2 * report["echoed"] / report["seconds"]},
        cpu=share,
        command=" ".join(argv),
        notes={"sent": report["sent"], "echoed": report["echoed"]},
    )


def _udp_traffic(stage: Stage, seconds: float) -> list[str]:
    argv = [sys.executable, str(_PROGRAMS / "udp_traffic.py"), "drive", stage.target, str(stage.port)]
    return [*argv, f"{seconds:.0f}", str(_UDP_FLOWS), str(_UDP_WINDOW), str(_UDP_SIZE)]


async def _memory(stage: Stage, _seconds: float) -> Measured:
    count = idle_connections()
    return await memory.measure(stage, count, [sys.executable, str(_PROGRAMS / "idle_traffic.py")])


GENERATORS = {
    "iperf3": prints_version("iperf3", "--version"),
    "wrk": prints_version("wrk", "-v"),
    "nginx, as web server": prints_version("nginx", "-v"),
}

WORKLOADS = (
    Workload(name="bulk", port=5201, server=_iperf3_server, measure=_bulk),
    Workload(
        name="requests",
        port=8000,
        server=_web_server,
        measure=_requests,
        when_tight="brake",
        has_kernel_tiers=False,
    ),
    Workload(
        name="connections",
        port=8000,
        server=_web_server,
        measure=_connections,
        when_tight="brake",
        has_kernel_tiers=False,
    ),
    Workload(name="shared_requests", port=8000, server=_web_server_of_several, measure=_shared_requests),
    Workload(
        name="shared_connections", port=8000, server=_web_server_of_several, measure=_shared_connections
    ),
    Workload(name="latency", port=8000, server=_web_server, measure=_latency),
    Workload(
        name="udp",
        protocol="udp",
        port=5300,
        server=_own_server("udp_traffic.py", 5300),
        measure=_udp,
        when_tight="brake",
    ),
    Workload(
        name="memory",
        port=9000,
        server=_own_server("idle_traffic.py", 9000),
        measure=_memory,
        has_kernel_tiers=False,
    ),
)
