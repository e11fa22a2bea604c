"""UDP through real worker processes: flows, their ends, their limits, and what is counted of them."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import asynccontextmanager

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Balance, Endpoint, Protocol
from marchproxy_core.testing import open_loopback_wire, until
from marchproxy_core.testing.laws.traffic import ask_udp
from marchproxy_core.testing.servers import udp_server


@pytest.fixture
def relaying_to(relaying):
    @asynccontextmanager
    async def relaying_to(*, server_version: int = 4, **options):
        """Run the tier with one echo server behind it; yields that server too."""
        async with (
            open_loopback_wire() as here,
            udp_server(here, server_version) as server,
            relaying(server.backend, protocol=Protocol.UDP, **options) as (running, service, wire),
        ):
            yield running, service, wire, server

    return relaying_to


def one_worker(**settings) -> Settings:
    return Settings(worker_threads=1, **settings)


def nobody() -> Backend:
    """A backend that refuses: a port that was free a moment ago."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return Backend(endpoint=Endpoint.parse(f"127.0.0.1:{sock.getsockname()[1]}"))


async def dropped(running, service, reason: str) -> None:
    async def counted() -> bool:
        return (await running.stats_of(service)).drops.get(reason, 0) > 0

    await until(counted, what=f"a drop for {reason}")


async def flows(running, service, count: int) -> None:
    async def there_are() -> bool:
        return (await running.stats_of(service)).connections_active == count

    await until(there_are, what=f"{count} flows")


async def test_a_silent_flow_ends_and_the_next_datagram_opens_another(relaying_to):
    async with relaying_to(settings=one_worker(idle_timeout=0.5)) as (running, service, wire, server):
        with await wire.connect_udp(service.listen[0]) as client:
            assert await ask_udp(client, b"one") == b"one"
            await flows(running, service, 0)
            assert await ask_udp(client, b"two") == b"two"
        assert len(server.received) == 2, "each flow has a port of its own"
        assert not (await running.stats_of(service)).drops, "an idle flow is no drop"


async def test_datagrams_of_every_size_pass_whole(relaying_to):
    async with relaying_to() as (_, service, wire, _):
        with await wire.connect_udp(service.listen[0]) as client:
            for size in (0, 1, 1472, 9000, 65507):
                message = os.urandom(size)
                assert await ask_udp(client, message) == message


async def test_many_datagrams_at_once_all_arrive_and_are_counted(relaying_to):
    async with relaying_to() as (running, service, wire, _):
        messages = {b"%04d" % number for number in range(200)}
        got = set()
        with await wire.connect_udp(service.listen[0]) as client, trio.fail_after(20):
            for message in messages:
                await client.send(message)
            while got != messages:
                got.add(await client.recv(100))
        stats = await running.stats_of(service)
        assert (stats.packets_in, stats.packets_out) == (200, 200)
        assert (stats.bytes_in, stats.bytes_out) == (800, 800)
        assert stats.connections_opened == 1


@pytest.mark.parametrize("server_version", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
async def test_ip_versions_mix(relaying_to, version, server_version):
    async with relaying_to(version=version, server_version=server_version) as (_, service, wire, _):
        with await wire.connect_udp(service.listen[0]) as client:
            assert await ask_udp(client, b"hello") == b"hello"


@pytest.mark.parametrize(
    ("wildcard", "addresses"), [("0.0.0.0", ("127.0.0.1", "127.0.0.2")), ("::", ("::1",))]
)
async def test_on_a_wildcard_address_answers_come_from_where_the_client_sent_to(
    relaying_to, wildcard, addresses
):
    with socket.socket(socket.AF_INET6 if ":" in wildcard else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((wildcard, 0))
        port = sock.getsockname()[1]
    listen = Endpoint.parse(f"[{wildcard}]:{port}" if ":" in wildcard else f"{wildcard}:{port}")
    async with relaying_to(listen=(listen,)) as (running, service, wire, _):
        for address in addresses:
            # A connected socket takes answers from that address alone.
            target = Endpoint.parse(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
            with await wire.connect_udp(target) as client:
                assert await ask_udp(client, b"hello") == b"hello"
        assert (await running.stats_of(service)).connections_opened == len(addresses)


async def test_a_client_that_talks_to_two_addresses_has_two_flows(relaying_to):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 0))
        port = sock.getsockname()[1]
    listen = (Endpoint.parse(f"0.0.0.0:{port}"),)
    async with relaying_to(listen=listen) as (running, service, _, _):
        with trio.socket.socket(type=socket.SOCK_DGRAM) as client:
            await client.bind(("127.0.0.1", 0))
            for address in ("127.0.0.1", "127.0.0.2"):
                await client.sendto(b"hello", (address, port))
                with trio.fail_after(20):
                    assert await client.recvfrom(100) == (b"hello", (address, port))
        assert (await running.stats_of(service)).connections_opened == 2


async def test_a_refused_flow_moves_to_another_backend_with_what_opened_it(relaying):
    async with open_loopback_wire() as here, udp_server(here) as server:
        backends = (nobody(), server.backend, nobody())
        async with relaying(*backends, protocol=Protocol.UDP) as (running, service, wire):
            for _ in range(3):
                with await wire.connect_udp(service.listen[0]) as client:
                    await client.send(b"once")
                    with trio.fail_after(20):
                        assert await client.recv(100) == b"once"
            assert (await running.stats_of(service)).connections_opened == 3


async def test_datagrams_that_meet_a_refusal_of_an_earlier_one_are_not_lost(relaying):
    async with open_loopback_wire() as here, udp_server(here) as server:
        backends = (nobody(), nobody(), server.backend)
        async with relaying(*backends, protocol=Protocol.UDP) as (running, service, wire):
            for _ in range(5):
                with await wire.connect_udp(service.listen[0]) as client, trio.fail_after(20):
                    messages = [b"%d" % number for number in range(10)]
                    for message in [b"", *messages]:
                        await client.send(message)
                    got = sorted([await client.recv(100) for _ in range(11)])
                    assert got == [b"", *messages], "each comes once"
            assert not (await running.stats_of(service)).drops


async def test_when_every_backend_refuses_the_flow_ends_and_is_counted(relaying):
    async with relaying(nobody(), nobody(), protocol=Protocol.UDP) as (running, service, wire):
        with await wire.connect_udp(service.listen[0]) as client:
            await client.send(b"hello")
            await dropped(running, service, "backend_refused")
            await flows(running, service, 0)


async def test_one_flow_too_many_is_refused_and_counted(relaying_to):
    async with relaying_to(max_connections=1) as (running, service, wire, _):
        with (
            await wire.connect_udp(service.listen[0]) as first,
            await wire.connect_udp(service.listen[0]) as second,
        ):
            assert await ask_udp(first, b"one") == b"one"
            await second.send(b"two")
            await dropped(running, service, "max_connections")
            assert await ask_udp(first, b"one") == b"one"


async def test_without_descriptors_new_flows_are_refused_and_the_old_ones_go_on(relaying_to):
    async with relaying_to() as (running, service, wire, _):
        with (
            await wire.connect_udp(service.listen[0]) as first,
            await wire.connect_udp(service.listen[0]) as second,
        ):
            assert await ask_udp(first, b"one") == b"one"
            (pid,) = running.attachment.pool.pids
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
            await second.send(b"two")
            await dropped(running, service, "no_descriptors")
            assert await ask_udp(first, b"one") == b"one"
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            assert await ask_udp(second, b"two") == b"two"


async def test_while_draining_unknown_clients_are_dropped_and_counted(relaying_to):
    async with relaying_to() as (running, service, wire, _):
        with await wire.connect_udp(service.listen[0]) as known:
            assert await ask_udp(known, b"one") == b"one"
            running.drain(service)

            async def dropped() -> bool:
                with await wire.connect_udp(service.listen[0]) as stranger:
                    await stranger.send(b"two")
                return (await running.stats_of(service)).drops.get("draining", 0) > 0

            await until(dropped)
            assert await ask_udp(known, b"one") == b"one"


async def test_maglev_keeps_a_client_address_at_its_backend(relaying):
    async with (
        open_loopback_wire() as here,
        udp_server(here, name=b"a") as a,
        udp_server(here, name=b"b") as b,
    ):
        options = {
            "protocol": Protocol.UDP,
            "balance": Balance.MAGLEV,
            "settings": Settings(worker_threads=2),
        }
        async with relaying(a.backend, b.backend, **options) as (_, service, wire):
            seen = set()
            for _ in range(8):
                with await wire.connect_udp(service.listen[0]) as client:
                    seen.add(await ask_udp(client, b""))
            assert len(seen) == 1
