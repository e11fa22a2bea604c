"""Checks against real servers on loopback; the loop that makes them on a mock clock."""

from __future__ import annotations

import ipaddress
import itertools
import random
import socket
import struct
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import structlog
import trio
import trio.testing

from marchproxy_core.backends import CheckResult, EjectionPolicy, HealthBoard, http_status
from marchproxy_core.backends.health_checks import CannotCheck, check_backend, run_health_checks
from marchproxy_core.model import BackendObservation, Health
from marchproxy_core.services import Backend, Endpoint, HealthCheck, HealthCheckKind, Service
from marchproxy_core.table import Table

HTTP = HealthCheck(kind=HealthCheckKind.HTTP, timeout_s=2.0, path="/health?x=1")
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")


@asynccontextmanager
async def server(handler, host="127.0.0.1"):
    """Serve with ``handler(stream)`` on a port of the kernel's choice."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host=host))
        port = listeners[0].socket.getsockname()[1]
        yield Endpoint(ipaddress.ip_address(host), port)
        nursery.cancel_scope.cancel()


def answering(answer):
    async def handler(stream):
        await read_head(stream)
        await stream.send_all(answer)

    return handler


async def read_head(stream):
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = await stream.receive_some()
        if not chunk:
            break
        head += chunk
    return head


async def never_answer(stream):
    await trio.sleep_forever()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_tcp_check_passes_and_ends_with_fin(host):
    ends = []
    ended = trio.Event()

    async def handler(stream):
        # A reset would make receive_some raise instead of returning the end of the stream.
        try:
            ends.append(await stream.receive_some())
        except trio.BrokenResourceError as error:
            ends.append(error)
        ended.set()

    async with server(handler, host) as endpoint:
        result = await check_backend(endpoint, HealthCheck())
        with trio.fail_after(2):
            await ended.wait()
    assert result.ok
    assert result.reason == ""
    assert 0 < result.latency_s < 1
    assert ends == [b""]


async def test_tcp_check_of_a_server_that_greets_ends_with_fin():
    ends = []
    ended = trio.Event()

    async def handler(stream):
        await stream.send_all(b"220 greetings\r\n")
        try:
            ends.append(await stream.receive_some())
        except trio.BrokenResourceError as error:
            ends.append(error)
        ended.set()

    async with server(handler) as endpoint:
        result = await check_backend(endpoint, HealthCheck())
        with trio.fail_after(2):
            await ended.wait()
    assert result.ok
    assert ends == [b""]


async def test_tcp_check_does_not_wait_long_for_a_server_that_keeps_the_connection():
    async with server(never_answer) as endpoint:
        with trio.fail_after(1):
            assert (await check_backend(endpoint, HealthCheck())).ok


@pytest.mark.parametrize("kind", list(HealthCheckKind))
async def test_a_closed_port_is_refused(kind):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = Endpoint(LOOPBACK, reserved.getsockname()[1])
        result = await check_backend(endpoint, HealthCheck(kind=kind))
    assert (result.ok, result.reason) == (False, "connection refused")


async def test_the_checks_own_port_goes_before_the_backends():
    async with server(never_answer) as endpoint:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            closed = Endpoint(LOOPBACK, reserved.getsockname()[1])
            assert (await check_backend(closed, HealthCheck(port=endpoint.port))).ok


async def test_http_check_sends_what_it_says():
    heads = []

    async def handler(stream):
        heads.append(await read_head(stream))
        await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with server(handler) as endpoint:
        assert (await check_backend(endpoint, HTTP)).ok
        assert (await check_backend(endpoint, attrs.evolve(HTTP, host="example.org"))).ok
    first, second = (head.decode().split("\r\n") for head in heads)
    assert first == [
        "GET /health?x=1 HTTP/1.1",
        f"Host: {endpoint}",
        "User-Agent: marchproxy-health",
        "Connection: close",
        "",
        "",
    ]
    assert second[1] == "Host: example.org"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.0 399 \r\n\r\n", ""),
        (b"HTTP/1.1 200\r\n\r\n", ""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "status 400"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "status 101"),
        (b"\x16\x03\x01 garbage \xff\x00", "not an HTTP/1.x answer"),
        (b"HTTP/2 200 OK\r\n\r\n", "not an HTTP/1.x answer"),
        (b"http/1.1 200 OK\r\n\r\n", "not an HTTP/1.x answer"),
        (b"HTTP/1.2 200 OK\r\n\r\n", "malformed status line"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "malformed status line"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "malformed status line"),
        (b"HTTP/1.1 999 OK\r\n\r\n", "malformed status line"),
        (b"HTTP/1.1 200 O\x00K\r\n\r\n", "malformed status line"),
        (b"HTTP/1.1 200 OK\nServer: bare line feed\r\n\r\n", "malformed status line"),
        (b"HTTP/1.1 200 OK", "closed before it sent a status"),
        (b"", "closed before it sent a status"),
        (b"HTTP/1.1 200 " + b"x" * 40000, f"no status within {http_status.MAX_HEAD} bytes"),
    ],
)
async def test_http_answers(answer, reason):
    async def handler(stream):
        try:
            await answering(answer)(stream)
        except trio.BrokenResourceError:
            assert len(answer) > http_status.MAX_HEAD  # we need not read an endless line to its end

    async with server(handler) as endpoint:
        result = await check_backend(endpoint, HTTP)
    assert (result.ok, result.reason) == (not reason, reason)


@pytest.mark.parametrize("kind", ["silent", "dripping"])
async def test_http_server_that_takes_too_long_times_out(kind):
    async def drip(stream):
        for byte in b"HTTP/1.1 200 OK, a byte at a time":
            try:
                await stream.send_all(bytes([byte]))
            except trio.BrokenResourceError:
                return
            await trio.sleep(0.02)

    async with server(never_answer if kind == "silent" else drip) as endpoint:
        result = await check_backend(endpoint, attrs.evolve(HTTP, timeout_s=0.25))
    assert (result.ok, result.reason) == (False, "timed out after 0.25 s")
    assert 0.25 <= result.latency_s < 2


async def test_http_server_that_drips_in_time_passes():
    async def drip(stream):
        await read_head(stream)
        for byte in b"HTTP/1.1 200 OK\r\n":
            await stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with server(drip) as endpoint:
        assert (await check_backend(endpoint, HTTP)).ok


async def test_http_server_that_resets_fails():
    async def reset(stream):
        await read_head(stream)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with server(reset) as endpoint:
        result = await check_backend(endpoint, HTTP)
    assert (result.ok, result.reason) == (False, "connection reset by peer")


async def test_a_connect_that_nobody_answers_times_out():
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (one, two):  # Linux takes one more than the backlog; further SYNs are dropped
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        result = await check_backend(Endpoint(LOOPBACK, full.getsockname()[1]), HealthCheck(timeout_s=0.2))
    assert (result.ok, result.reason) == (False, "timed out after 0.2 s")


async def test_a_path_that_would_split_the_request_is_not_sent():
    async with server(never_answer) as endpoint:
        result = await check_backend(endpoint, attrs.evolve(HTTP, path="/\r\nX: y"))
    assert (result.ok, result.reason) == (False, "path or host has characters that HTTP does not allow there")


# The loop, on a clock that jumps.

A, B = (Endpoint(LOOPBACK, port) for port in (1001, 1002))
CHECK = HealthCheck(interval_s=10.0, rise=2, fall=3)


def web(*endpoints, check: HealthCheck | None = CHECK, name="web"):
    backends = tuple(Backend(endpoint=endpoint) for endpoint in endpoints)
    return Service(name=name, listen=(Endpoint(LOOPBACK, 80),), backends=backends, health_check=check)


@attrs.define
class Rig:
    """A fake check, and what came of it."""

    services: Table[tuple[Service, ...]]
    board: HealthBoard
    down: set[Endpoint] = attrs.field(factory=set)
    unable: bool = False
    checks: list[tuple[float, Endpoint]] = attrs.field(factory=list)
    changed: list[str] = attrs.field(factory=list)

    async def check(self, backend, check):
        self.checks.append((trio.current_time(), backend))
        if self.unable:
            raise CannotCheck("too many open files")
        await trio.sleep(0.01)
        ok = backend not in self.down
        return CheckResult(ok=ok, reason="" if ok else "connection refused", latency_s=0.01)

    async def run(self, *, task_status):
        await run_health_checks(
            self.services,
            self.board,
            self.changed.append,
            check=self.check,
            random=random.Random(1),
            task_status=task_status,
        )

    def health(self, service="web"):
        return [view.health for view in self.board.views(service)]

    def reload(self, *services):
        self.board.configure(services, now=trio.current_time())
        self.services.publish(services)


@asynccontextmanager
async def running(*services, policy=None):
    rig = Rig(Table(services), HealthBoard(services, now=trio.current_time(), policy=policy))
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.run)
        yield rig
        nursery.cancel_scope.cancel()


async def test_first_checks_decide_and_are_told(autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running(web(A, B)) as rig:
            rig.down.add(B)
            assert rig.health() == [Health.UNCHECKED, Health.UNCHECKED]
            await trio.sleep(5)
            assert rig.health() == [Health.UP, Health.DOWN]
            assert rig.changed == ["web", "web"]
    events = {(entry["event"], entry["backend"], entry["reason"], entry["log_level"]) for entry in logs}
    assert events == {
        ("backend.went_up", str(A), "the first check passed", "info"),
        ("backend.went_down", str(B), "the first check failed: connection refused", "warning"),
    }


async def test_checks_keep_their_interval_with_jitter(autojump_clock):
    async with running(web(A)) as rig:
        await trio.sleep(1000)
    times = [at for at, _ in rig.checks]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 90 <= len(times) <= 112
    assert all(8.9 <= gap <= 11.1 for gap in gaps)
    assert len(set(gaps)) > 50


async def test_a_backend_goes_down_after_fall_and_up_after_rise(autojump_clock):
    async with running(web(A, B)) as rig:
        await trio.sleep(5)
        rig.down.add(A)
        await trio.sleep(22)  # two checks, three at the most where the jitter shortens them
        assert rig.board.rows()[0].failed_checks == 2
        assert rig.health()[0] is Health.UP
        await trio.sleep(11)
        assert rig.health()[0] is Health.DOWN
        rig.down.clear()
        await trio.sleep(33)
        assert rig.health()[0] is Health.UP


async def test_a_reload_keeps_running_checks_and_changes_the_others(autojump_clock):
    async with running(web(A), web(B, name="api")) as rig:
        await trio.sleep(5)
        rig.checks.clear()
        rig.reload(web(A), web(B, name="api", check=None), web(B, name="new"))
        assert rig.health("api") == [Health.UNCHECKED]
        await trio.sleep(100)
        counts = [sum(backend == each for _, backend in rig.checks) for each in (A, B)]
        assert 9 <= counts[0] <= 11
        assert 9 <= counts[1] <= 11  # those of "new" only
        assert rig.health("new") == [Health.UP]
        rig.reload()
        rig.checks.clear()
        await trio.sleep(100)
        assert rig.checks == []


async def test_an_ejected_backend_comes_back_when_its_pause_is_over(autojump_clock):
    policy = EjectionPolicy(failures=2, pause_s=30.0)
    with structlog.testing.capture_logs() as logs:
        async with running(web(A, B, check=None), policy=policy) as rig:
            await trio.sleep(1)
            for _ in range(2):
                rig.board.observe(
                    BackendObservation(service="web", backend=A, ok=False, error="refused"),
                    trio.current_time(),
                )
            assert rig.health() == [Health.EJECTED, Health.UNCHECKED]
            await trio.sleep(29.9)
            assert rig.health() == [Health.EJECTED, Health.UNCHECKED]
            await trio.sleep(0.2)
            assert rig.health() == [Health.UNCHECKED, Health.UNCHECKED]
            assert rig.changed == ["web", "web"]
    assert [(entry["event"], entry["reason"]) for entry in logs] == [
        ("backend.ejected", "2 connections in a row failed: refused; out for 30 s"),
        ("backend.readmitted", "readmitted: its pause is over"),
    ]


async def test_a_check_that_cannot_be_made_says_nothing_of_the_backend(autojump_clock):
    with structlog.testing.capture_logs() as logs:
        async with running(web(A)) as rig:
            await trio.sleep(5)
            rig.unable = True
            await trio.sleep(100)
            assert rig.health() == [Health.UP]
            rig.unable = False
            rig.down.add(A)
            await trio.sleep(50)
            assert rig.health() == [Health.DOWN]
    assert [entry["event"] for entry in logs] == [
        "backend.went_up",
        "backend.check_skipped",
        "backend.went_down",
    ]
    assert logs[1]["reason"] == "too many open files"


async def test_nothing_is_told_after_the_end(autojump_clock):
    async with running(web(A, B, check=None), policy=EjectionPolicy(failures=1)) as rig:
        pass
    rig.board.observe(BackendObservation(service="web", backend=A, ok=False), trio.current_time())
    assert rig.health() == [Health.EJECTED, Health.UNCHECKED]
    assert rig.changed == []


async def test_real_checks_follow_a_server_that_comes_up():
    check = HealthCheck(kind=HealthCheckKind.HTTP, interval_s=0.02, timeout_s=1.0, rise=2, fall=2)
    status = [b"503 Not Yet"]

    async def handler(stream):
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 " + status[0] + b"\r\nConnection: close\r\n\r\n")

    async with server(handler) as endpoint:
        services = (web(endpoint, check=check),)
        board = HealthBoard(services)
        moved = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(run_health_checks, Table(services), board, lambda _: moved.set())
            with trio.fail_after(5):
                await moved.wait()
            assert board.views("web")[0].health is Health.DOWN
            assert board.rows()[0].reason == "the first check failed: status 503"
            moved = trio.Event()
            status[0] = b"200 OK"
            with trio.fail_after(5):
                await moved.wait()
            row = board.rows()[0]
            assert (row.health, row.reason) == (Health.UP, "2 checks in a row passed")
            assert row.last_check_latency_s is not None
            assert row.last_error == "status 503"
            nursery.cancel_scope.cancel()
