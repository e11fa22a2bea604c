"""Flushing a backend, through real worker processes: what it has ends, in those that retire too, and nothing else."""

from __future__ import annotations

import socket

import attrs
import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Endpoint, Protocol
from marchproxy_core.testing import open_loopback_wire, until
from marchproxy_core.testing.laws.traffic import ask_udp
from marchproxy_core.testing.servers import receive_exactly, tcp_server, udp_server


def flushed(service, *backends):
    gone = {backend.endpoint for backend in backends}
    return attrs.evolve(
        service,
        backends=tuple(
            attrs.evolve(one, weight=0, flush=True) if one.endpoint in gone else one
            for one in service.backends
        ),
    )


@pytest.fixture
async def servers():
    async with (
        open_loopback_wire() as here,
        tcp_server(here, name=b"a") as a,
        tcp_server(here, name=b"b") as b,
    ):
        yield a, b


async def one_of_each(wire, service):
    clients = {}
    while len(clients) < 2:
        client = await wire.connect(service.listen[0])
        if clients.setdefault(await receive_exactly(client, 1), client) is not client:
            await client.aclose()
    return clients[b"a"], clients[b"b"]


async def assert_reset(client):
    with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
        await client.receive_some()


async def drops(running, service):
    return (await running.stats_of(service)).drops


async def test_what_it_has_is_reset_and_counted_and_nothing_else_is(servers, relaying):
    a, b = servers
    settings = Settings(worker_threads=2)
    async with relaying(a.backend, b.backend, settings=settings) as (running, service, wire):
        at_a, at_b = await one_of_each(wire, service)
        async with at_a, at_b:
            running.put(flushed(service, a.backend))
            await assert_reset(at_a)
            await at_b.send_all(b"on")
            assert await receive_exactly(at_b, 2) == b"on"
            await until(lambda: _is_counted(running, service, 1))


async def _is_counted(running, service, count):
    counted = await running.stats_of(service)
    return counted.drops == {"flushed": count} and sum(counted.backend_active.values()) == 1


async def test_a_client_whose_backend_has_not_answered_yet_goes_to_another(servers, relaying):
    a, _ = servers
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        silent = Backend(endpoint=Endpoint.parse(f"127.0.0.1:{full.getsockname()[1]}"))
        settings = Settings(worker_threads=1, connect_timeout=3600)
        async with relaying(silent, settings=settings) as (running, service, wire):
            async with await wire.connect(service.listen[0]) as client:
                await until(lambda: _is_active(running, service))
                service = attrs.evolve(service, backends=(silent, a.backend))
                running.put(flushed(service, silent))
                with trio.fail_after(10):
                    assert await receive_exactly(client, 1) == b"a"
            assert await drops(running, service) == {}
            assert not running.observed


async def _is_active(running, service):
    return (await running.stats_of(service)).connections_active == 1


async def test_with_all_flushed_clients_are_reset_as_if_none_had_a_weight(servers, relaying):
    a, b = servers
    async with relaying(a.backend, b.backend) as (running, service, wire):
        at_a, at_b = await one_of_each(wire, service)
        async with at_a, at_b:
            running.put(flushed(service, a.backend, b.backend))
            await assert_reset(at_a)
            await assert_reset(at_b)
        with pytest.raises((trio.BrokenResourceError, ConnectionResetError)):
            async with await wire.connect(service.listen[0]) as client:
                await client.receive_some()
        assert await drops(running, service) == {"flushed": 2, "no_backend": 1}
        running.put(service)
        await until(lambda: running.attachment.pool._lives[0].worker.applied == 3)
        at_a, at_b = await one_of_each(wire, service)
        await at_a.aclose()
        await at_b.aclose()


async def test_connections_of_a_worker_that_retires_end_too(servers, relaying):
    a, b = servers
    settings = Settings(worker_threads=1, max_requests_per_worker=4)
    async with relaying(a.backend, b.backend, settings=settings) as (running, service, wire):
        (first,) = running.attachment.pool.pids
        at_a, at_b = await one_of_each(wire, service)
        async with at_a, at_b:
            for _ in range(4):
                async with await wire.connect(service.listen[0]) as client:
                    await receive_exactly(client, 1)
            await until(lambda: running.attachment.pool.pids[0] != first)
            running.put(flushed(service, a.backend))
            await assert_reset(at_a)
            await at_b.send_all(b"on")
            assert await receive_exactly(at_b, 2) == b"on"
            assert first in running.attachment.pool.pids
        await until(lambda: first not in running.attachment.pool.pids)
        assert await drops(running, service) == {"flushed": 1}


async def test_the_next_datagram_of_a_flow_goes_to_another_backend(relaying):
    async with (
        open_loopback_wire() as here,
        udp_server(here, name=b"a") as a,
        udp_server(here, name=b"b") as b,
        relaying(a.backend, b.backend, protocol=Protocol.UDP) as (running, service, wire),
    ):
        with (
            await wire.connect_udp(service.listen[0]) as one,
            await wire.connect_udp(service.listen[0]) as two,
        ):
            by_name = {(await ask_udp(client, b"?"))[:1]: client for client in (one, two)}
            running.put(flushed(service, a.backend))
            await until(lambda: _is_flushed(running, service))
            assert await ask_udp(by_name[b"a"], b"!") == b"b!"
            assert await ask_udp(by_name[b"b"], b"!") == b"b!"
            assert len(b.received) == 2, "the flow that was there keeps its port"
            assert (await running.stats_of(service)).connections_active == 2


async def _is_flushed(running, service):
    return await drops(running, service) == {"flushed": 1}
