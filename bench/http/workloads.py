"""The workloads of the HTTP bench: which backend, which generator, and how their figures are read."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from bench import memory, outputs
from bench.http import servers
from bench.http.confirming import confirm_cached, confirm_logged
from bench.http.metrics import KINDS, metrics_of
from bench.http.readying import until_served
from bench.http.servers import PROGRAMS
from bench.http.shape import TWO_WORKERS, Shape
from bench.outputs import NotUnderstood
from bench.peers import prints_version
from bench.placing import BRAKE
from bench.readings import CpuShare, Measured
from bench.workloads import Workload

if TYPE_CHECKING:
    from bench.placing import WhenTight
    from bench.stage import Stage

_WARM_UP_S = 1
_REQUESTS = 100_000
_FEW_CONNECTIONS = 16
_CONNECTIONS = 64
_H2_CONNECTIONS = 4
_STREAMS = 32
_MESSAGE_BYTES = 64
_WORKERS = 2
_Measure = Callable[..., Awaitable[Measured]]


@attrs.frozen
class Counted:
    """What a generator reported: how much came through, and how fast."""

    rate: float
    p50_us: float
    p99_us: float
    count: float


async def _wrk(
    workload: str,
    stage: Stage,
    seconds: float,
    *,
    path: str,
    body_bytes: int = 0,
    connections: int = _CONNECTIONS,
    threads: int = 1,
    more: Sequence[str] = (),
) -> Measured:
    """Run wrk; answers must have at least ``body_bytes``, so that nobody compresses or cuts them."""
    url = f"http://{stage.target}:{stage.port}{path}"
    argv = ["wrk", "--threads", str(threads), "--connections", str(connections), "--timeout", "5s"]
    argv += ["--latency", *more]
    await stage.run([*argv, "--duration", f"{_WARM_UP_S}s", url], deadline_s=_WARM_UP_S + 10)
    argv += ["--duration", f"{seconds:.0f}s", url]
    output, share = await stage.load(argv, seconds=seconds)
    read, (count, read_bytes) = outputs.wrk(output), outputs.wrk_volume(output)
    if read_bytes < 0.99 * body_bytes * count:
        raise NotUnderstood(f"answers were cut: {read_bytes / count:.0f} bytes each, want {body_bytes}")
    counted = Counted(read["rate"], read["p50_us"], read["p99_us"], count)
    return await _measured(workload, stage, counted, share, argv)


async def _connections_by_wrk(workload: str, stage: Stage, seconds: float, *, threads: int = 1) -> Measured:
    close = ("--header", "Connection: close")
    return await _wrk(workload, stage, seconds, path="/small", threads=threads, more=close)


async def _cached(workload: str, stage: Stage, seconds: float, *, threads: int = 1) -> Measured:
    measured = await _wrk(workload, stage, seconds, path="/cacheable", threads=threads)
    if stage.proxy_pid is not None:
        seen = stage.directory / servers.SEEN
        await trio.to_thread.run_sync(confirm_cached, seen, measured.notes["count"])
    return measured


async def _h2load(workload: str, stage: Stage, seconds: float, *, threads: int = 1) -> Measured:
    log = stage.directory / "h2load.log"
    argv = ["h2load", "--threads", str(threads), "--clients", str(_H2_CONNECTIONS)]
    argv += ["--max-concurrent-streams", str(_STREAMS)]
    url = f"https://{stage.target}:{stage.port}/small"
    await stage.run([*argv, "--duration", str(_WARM_UP_S), url], deadline_s=_WARM_UP_S + 10)
    argv += ["--duration", f"{seconds:.0f}", "--log-file", str(log), url]
    output, share = await stage.load(argv, seconds=seconds)
    count = outputs.h2load(output)
    took = outputs.h2load_log(await trio.to_thread.run_sync(log.read_text))
    counted = Counted(count / seconds, took["p50_us"], took["p99_us"], count)
    return await _measured(workload, stage, counted, share, argv)


async def _tls(workload: str, stage: Stage, seconds: float, *, kind: str) -> Measured:
    def argv(for_s: float) -> list[str]:
        program = [sys.executable, str(PROGRAMS / "tls_traffic.py"), stage.target, str(stage.port), "/small"]
        return [*program, f"{for_s:.0f}", str(_FEW_CONNECTIONS), kind]

    output, share = await _own_program(stage, seconds, argv)
    report = outputs.report(output, "count", "resumed", "seconds", "p50_us", "p99_us")
    resumed = report["resumed"] / report["count"]
    if (kind == "resumed") != (resumed > 0.99):
        raise NotUnderstood(f"{resumed:.0%} of the connections were resumed")
    counted = Counted(
        report["count"] / report["seconds"], report["p50_us"], report["p99_us"], report["count"]
    )
    return await _measured(workload, stage, counted, share, argv(seconds))


async def _websocket(workload: str, stage: Stage, seconds: float) -> Measured:
    def argv(for_s: float) -> list[str]:
        program = [sys.executable, str(PROGRAMS / "websocket_traffic.py"), "drive", stage.target]
        return [*program, str(stage.port), f"{for_s:.0f}", str(_CONNECTIONS), str(_MESSAGE_BYTES)]

    output, share = await _own_program(stage, seconds, argv)
    report = outputs.report(output, "echoed", "seconds", "p50_us", "p99_us")
    rate = report["echoed"] / report["seconds"]
    counted = Counted(rate, report["p50_us"], report["p99_us"], report["echoed"])
    return await _measured(workload, stage, counted, share, argv(seconds), has_log=False)


async def _own_program(
    stage: Stage, seconds: float, argv: Callable[[float], list[str]]
) -> tuple[str, CpuShare]:
    await stage.run(argv(_WARM_UP_S), deadline_s=_WARM_UP_S + 10)
    return await stage.load(argv(seconds), seconds=seconds)


async def _measured(
    workload: str,
    stage: Stage,
    counted: Counted,
    share: CpuShare,
    argv: Sequence[str],
    *,
    has_log: bool = True,
) -> Measured:
    """Return the figures of a turn, after a look at the proxy's memory and at its access log."""
    keys = metrics_of(workload)
    values = {
        keys.rate.key: counted.rate,
        keys.p50.key: counted.p50_us,
        keys.p99.key: counted.p99_us,
    }
    if stage.proxy_pid is not None:
        pss_kib = await trio.to_thread.run_sync(memory.pss_kib, stage.proxy_pid)
        values[keys.cpu.key] = _REQUESTS * share.proxy_run / counted.rate
        values[keys.memory.key] = pss_kib / 1024
    if stage.access_log is not None and has_log:
        await trio.to_thread.run_sync(confirm_logged, stage.access_log, counted.count)
    return Measured(values=values, cpu=share, command=" ".join(argv), notes={"count": counted.count})


async def _measure_served(
    measure: _Measure, workload: str, stage: Stage, seconds: float, *, tls: bool
) -> Measured:
    await until_served(stage, tls=tls)
    return await measure(workload, stage, seconds)


def _script(name: str) -> tuple[str, str]:
    return "--script", str(PROGRAMS / name)


_GENERATORS: Mapping[str, _Measure] = {
    "small": partial(_wrk, path="/small", body_bytes=50),
    "varied": partial(_wrk, path="/small", body_bytes=50, more=_script("varied.lua")),
    "medium": partial(_wrk, path="/medium", body_bytes=servers.MEDIUM_BYTES),
    "download": partial(_wrk, path="/large", body_bytes=servers.LARGE_BYTES, connections=_FEW_CONNECTIONS),
    "upload": partial(_wrk, path="/sink", connections=_FEW_CONNECTIONS, more=_script("upload.lua")),
    "connections": _connections_by_wrk,
    "tls_full": partial(_tls, kind="full"),
    "tls_resumed": partial(_tls, kind="resumed"),
    "http2": _h2load,
    "websocket": _websocket,
    "cached": _cached,
}
_SERVERS = {"upload": servers.sink, "websocket": servers.websocket}
_SHAPES = {
    "tls_full": Shape(tls=True, handshakes=True),
    "tls_resumed": Shape(tls=True, handshakes=True),
    "http2": Shape(tls=True),
    "websocket": Shape(websocket=True),
    "cached": Shape(cache=True),
}
_HANDSHAKE_BRAKE = 0.7
"""A client's part of a handshake costs more than a server's, so a generator needs more of a lead."""
_SHARED = frozenset({"download", "upload"})
"""Bodies, as bulk in bench/placing.py."""
_ONE_PROCESS = frozenset({"upload", "tls_full", "tls_resumed", "websocket"})
"""Their generators or servers are one process, which would be the limit of two workers."""


def _workload(name: str) -> Workload:
    shape = _SHAPES.get(name, Shape())
    when_tight: WhenTight = "share" if name in _SHARED else "brake"
    return Workload(
        name=name,
        port=shape.port,
        server=_SERVERS.get(name, servers.web),
        measure=partial(_measure_served, _GENERATORS[name], name, tls=shape.tls),
        when_tight=when_tight,
        brake=_HANDSHAKE_BRAKE if shape.handshakes else BRAKE,
        http=shape,
    )


def _with_two_workers(one: Workload) -> Workload:
    name = one.name + TWO_WORKERS
    shape = _SHAPES.get(one.name, Shape())
    measure = partial(_GENERATORS[one.name], threads=_WORKERS)
    return attrs.evolve(
        one,
        name=name,
        server=partial(servers.web, workers=_WORKERS),
        measure=partial(_measure_served, measure, name, tls=shape.tls),
        when_tight="share",
        http=attrs.evolve(shape, workers=_WORKERS),
    )


WITH_ONE = tuple(_workload(kind.name) for kind in KINDS)
WITH_TWO = tuple(_with_two_workers(one) for one in WITH_ONE if one.name not in _ONE_PROCESS)
GENERATORS = {
    "wrk": prints_version("wrk", "-v"),
    "h2load": prints_version("h2load", "--version"),
    "nginx, as web server": prints_version("nginx", "-v"),
    "openssl, for TLS clients": prints_version(
        sys.executable, "-c", "import ssl; print(ssl.OPENSSL_VERSION)"
    ),
}
