"""TCP through real worker processes: backends that fail, peers that stall, limits, and what is counted of it."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Balance, Endpoint
from marchproxy_core.testing import open_loopback_wire, until
from marchproxy_core.testing.servers import receive_all, receive_exactly, tcp_server

RESET = (trio.BrokenResourceError, ConnectionResetError)
"""How a client learns of a reset: after its connect, or already in it."""


@asynccontextmanager
async def three_servers():
    async with (
        open_loopback_wire() as here,
        tcp_server(here, name=b"a") as a,
        tcp_server(here, name=b"b") as b,
        tcp_server(here, name=b"c") as c,
    ):
        yield a, b, c


def one_worker(**settings) -> Settings:
    return Settings(worker_threads=1, **settings)


def nobody() -> Backend:
    """A backend that refuses: a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Backend(endpoint=Endpoint.parse(f"127.0.0.1:{sock.getsockname()[1]}"))


@asynccontextmanager
async def black_hole():
    """A backend whose queue is full: the kernel drops every further SYN, so connecting to it never ends."""
    with socket.socket() as sock, socket.socket() as first, socket.socket() as second:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        await trio.lowlevel.checkpoint()
        yield Backend(endpoint=Endpoint.parse(f"127.0.0.1:{sock.getsockname()[1]}"))


async def dropped(running, service, reason: str, count: int = 1) -> None:
    async def counted() -> bool:
        return (await running.stats_of(service)).drops.get(reason, 0) == count

    await until(counted, what=f"{count} drops for {reason}")


async def fate_of(wire, service, send: bytes = b"") -> str:
    """Connect a client and say what becomes of it: what it got, or ``reset``."""
    with trio.fail_after(20):
        try:
            async with await wire.connect(service.listen[0]) as client:
                if send:
                    await client.send_all(send)
                return (await receive_all(client)).decode()
        except RESET:
            return "reset"


async def named(wire, service) -> bytes:
    """Connect and return the first byte, the backend's name."""
    with trio.fail_after(20):
        async with await wire.connect(service.listen[0]) as client:
            return await receive_exactly(client, 1)


async def fates_of(wire, service, count: int) -> tuple[Counter, list[trio.SocketStream]]:
    """Connect so many clients and stay connected: what they got, and those that were let in."""
    fates: Counter = Counter()
    clients = []
    for _ in range(count):
        try:
            with trio.fail_after(20):
                client = await wire.connect(service.listen[0])
                clients.append(client)
                fates[await receive_exactly(client, 1)] += 1
        except RESET:
            fates["reset"] += 1
    return fates, clients


async def test_a_refused_backend_is_retried_on_another_before_the_client_notices(relaying):
    async with (
        open_loopback_wire() as here,
        tcp_server(here, name=b"a") as a,
        relaying(nobody(), a.backend, nobody()) as (running, service, wire),
    ):
        assert [await named(wire, service) for _ in range(6)] == [b"a"] * 6
        stats = await running.stats_of(service)
        assert stats.connections_opened == 6
        assert not stats.drops


async def test_when_every_backend_refuses_the_client_is_reset_and_counted(relaying):
    async with relaying(nobody(), nobody()) as (running, service, wire):
        assert await fate_of(wire, service) == "reset"
        await dropped(running, service, "backend_refused")
        assert (await running.stats_of(service)).connections_active == 0


async def test_a_black_holed_backend_costs_one_connect_timeout_and_the_next_is_tried(relaying):
    async with (
        open_loopback_wire() as here,
        tcp_server(here, name=b"a") as a,
        black_hole() as hole,
        relaying(hole, a.backend, settings=one_worker(connect_timeout=0.3)) as (_, service, wire),
    ):
        assert {await named(wire, service) for _ in range(2)} == {b"a"}


async def test_when_every_backend_is_black_holed_the_client_is_reset_and_counted(relaying):
    async with (
        black_hole() as hole,
        relaying(hole, settings=one_worker(connect_timeout=0.3)) as (running, service, wire),
    ):
        assert await fate_of(wire, service) == "reset"
        await dropped(running, service, "backend_timeout")


async def test_a_client_that_never_reads_is_reset_after_the_write_timeout(relaying_to):
    lost = trio.Event()

    async def flood(stream):
        try:
            while True:
                await stream.send_all(bytes(1 << 20))
        except trio.BrokenResourceError:
            lost.set()

    settings = one_worker(write_timeout=0.5)
    async with relaying_to(serve=flood, settings=settings) as (running, service, wire, _):
        async with await wire.connect(service.listen[0]):
            with trio.fail_after(20):
                await lost.wait()
        await dropped(running, service, "write_timeout")


async def test_a_silent_connection_ends_after_the_idle_timeout(relaying_to):
    settings = one_worker(idle_timeout=0.5)
    async with relaying_to(settings=settings) as (running, service, wire, _):
        async with await wire.connect(service.listen[0]) as client:
            with trio.fail_after(20):
                assert await receive_all(client) == b"a"
        await dropped(running, service, "idle_timeout")


async def test_one_too_many_is_reset_and_counted_and_the_next_is_let_in_when_one_leaves(relaying_to):
    async with relaying_to(max_connections=2) as (running, service, wire, _):
        clients = [await wire.connect(service.listen[0]) for _ in range(2)]
        for client in clients:
            assert await receive_exactly(client, 1) == b"a"
        assert await fate_of(wire, service) == "reset"
        await dropped(running, service, "max_connections")
        await clients.pop().aclose()

        async def let_in() -> bool:
            try:
                return await named(wire, service) == b"a"
            except RESET:
                return False

        await until(let_in)
        await clients.pop().aclose()


async def test_the_global_limit_holds_over_all_services_and_workers(relaying_to):
    settings = Settings(worker_threads=2, global_max_connections=3)
    async with relaying_to(settings=settings) as (running, service, wire, _):
        fates, clients = await fates_of(wire, service, 12)
        assert fates == {b"a": 3, "reset": 9}
        await dropped(running, service, "global_max_connections", 9)
        for client in clients:
            await client.aclose()


async def test_faster_than_the_rate_is_reset_and_counted(relaying_to):
    # A burst of one, and then one in a thousand seconds.
    async with relaying_to(connection_rate=0.001) as (running, service, wire, _):
        assert await named(wire, service) == b"a"
        assert await fate_of(wire, service) == "reset"
        await dropped(running, service, "connection_rate")


async def test_without_descriptors_clients_are_reset_and_counted_and_the_worker_goes_on(relaying_to):
    async with relaying_to() as (running, service, wire, _):
        assert await named(wire, service) == b"a"
        (pid,) = running.attachment.pool.pids
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))
        # Room for two connections, two descriptors each.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 4, before[1]))
        fates, clients = await fates_of(wire, service, 6)
        assert fates[b"a"] >= 1
        assert fates["reset"] >= 1
        assert sum(fates.values()) == 6, "nobody is left hanging"
        await dropped(running, service, "no_descriptors", fates["reset"])
        for client in clients:
            await client.aclose()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

        async def served() -> bool:
            try:
                return await named(wire, service) == b"a"
            except RESET:
                return False

        await until(served)
        assert running.attachment.pool.pids == (pid,)


async def test_above_the_memory_limit_new_clients_are_reset_and_the_old_ones_go_on(monkeypatch, relaying_to):
    used = 0
    monkeypatch.setattr("marchproxy_core.workers.watching.MEMORY_LOOK_S", 0.01)
    monkeypatch.setattr("marchproxy_core.workers.watching.daemon_memory_bytes", lambda: used)
    settings = one_worker(max_memory_mb=100)
    async with (
        relaying_to(settings=settings) as (running, service, wire, _),
        await wire.connect(service.listen[0]) as old,
    ):
        assert await receive_exactly(old, 1) == b"a"
        used = 200 << 20

        # A client that is let in would wait for its echo for ever: look at the flag first.
        await until(lambda: running.attachment.pool._ledger.regions[0][3] == 1)
        assert await fate_of(wire, service, b"x") == "reset"
        await dropped(running, service, "memory_limit")
        await old.send_all(b"still here")
        assert await receive_exactly(old, 10) == b"still here"


async def test_a_killed_worker_takes_its_own_clients_along_and_nobody_elses(relaying_to):
    async with relaying_to(settings=Settings(worker_threads=2)) as (running, service, wire, _):
        clients = [await wire.connect(service.listen[0]) for _ in range(16)]
        for client in clients:
            assert await receive_exactly(client, 1) == b"a"
        os.kill(running.attachment.pool.pids[0], signal.SIGKILL)
        fates = Counter()
        for client in clients:
            try:
                with trio.fail_after(20):
                    await client.send_all(b"?")
                    fates[await receive_exactly(client, 1)] += 1
            except RESET:
                fates["reset"] += 1
            await client.aclose()
        # With 16 clients over two sockets, either having none has a chance of one in 32,768.
        assert fates[b"?"] > 0
        assert fates[b"?"] + fates["reset"] + fates[b""] == 16
        assert [await named(wire, service) for _ in range(16)] == [b"a"] * 16, "nobody new is refused"


async def test_a_worker_that_served_its_number_of_requests_is_replaced_and_loses_nobody(relaying_to):
    settings = one_worker(max_requests_per_worker=5)
    async with relaying_to(settings=settings) as (running, service, wire, _):
        (first,) = running.attachment.pool.pids
        async with await wire.connect(service.listen[0]) as old:
            assert await receive_exactly(old, 1) == b"a"
            for _ in range(5):
                assert await named(wire, service) == b"a"
            await until(lambda: running.attachment.pool.pids[0] != first)
            for _ in range(4):
                assert await named(wire, service) == b"a"
            await old.send_all(b"still here")
            assert await receive_exactly(old, 10) == b"still here"
            assert first in running.attachment.pool.pids
        await until(lambda: first not in running.attachment.pool.pids)
        assert (await running.stats_of(service)).connections_opened == 10


@pytest.mark.parametrize("balance", list(Balance))
async def test_every_way_to_balance_uses_every_backend_and_none_of_weight_0(balance, relaying):
    async with three_servers() as (a, b, c):
        backends = (a.backend, b.backend, attrs.evolve(c.backend, weight=0))
        async with relaying(*backends, balance=balance) as (_, service, _):
            seen = Counter()
            for last in range(1, 33):  # Maglev goes by the client's address
                with trio.fail_after(20), trio.socket.socket() as client:
                    await client.bind((f"127.0.1.{last}", 0))
                    await client.connect((str(service.listen[0].ip), service.listen[0].port))
                    seen[await client.recv(1)] += 1
    assert set(seen) == {b"a", b"b"}
    if balance is Balance.ROUND_ROBIN:
        assert seen == {b"a": 16, b"b": 16}


async def test_maglev_keeps_a_client_at_its_backend(relaying):
    async with three_servers() as (a, b, c):
        backends = (a.backend, b.backend, c.backend)
        options = {"balance": Balance.MAGLEV, "settings": Settings(worker_threads=2)}
        async with relaying(*backends, **options) as (_, service, wire):
            assert len({await named(wire, service) for _ in range(12)}) == 1


@pytest.mark.parametrize("size", [10, 300_000, 600_000])
async def test_an_answer_before_a_reset_reaches_a_client_that_reads_late(size, relaying_to):
    """A server that answers and closes with the request unread resets; the answer must not be lost for that."""
    answer = os.urandom(size)
    asked = trio.Event()

    async def answer_early(stream):
        await receive_exactly(stream, 1)
        await asked.wait()
        await stream.send_all(answer)  # and close: the rest of the request lies unread

    async with (
        relaying_to(serve=answer_early) as (running, service, wire, _),
        await wire.connect(service.listen[0]) as client,
    ):
        await client.send_all(bytes(200_000))
        await until(partial(_has_moved, running, service, "bytes_in", 200_000))
        asked.set()
        await until(partial(_has_moved, running, service, "bytes_out", min(size, 100_000)))
        got = bytearray()
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
            await _receive_into(got, client)
    assert len(got) == size
    assert got == answer


async def _has_moved(running, service, counter: str, size: int) -> bool:
    return getattr(await running.stats_of(service), counter) >= size


async def _receive_into(got: bytearray, client) -> None:
    while some := await client.receive_some(1 << 16):
        got += some


async def test_a_change_of_health_does_not_forget_who_came_lately(relaying):
    # A burst of one, and then one in a thousand seconds.
    async with (
        three_servers() as (a, b, _),
        relaying(a.backend, b.backend, connection_rate=0.001) as (running, service, wire),
    ):
        await named(wire, service)
        running.put(service, down=[b.backend])
        await until(lambda: running.attachment.pool._lives[0].worker.applied == 2)
        assert await fate_of(wire, service) == "reset"
        await dropped(running, service, "connection_rate")
