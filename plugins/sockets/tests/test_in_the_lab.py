"""What only a network of one's own can show: a backend that a route swallows, and a host without free ports."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Protocol
from marchproxy_core.testing import Subject, open_lab_wire, until
from marchproxy_core.testing.laws.traffic import ask_udp, service_for
from marchproxy_core.testing.servers import receive_exactly, tcp_server, udp_server
from marchproxy_sockets import plugin

pytestmark = pytest.mark.root
RESET = (trio.BrokenResourceError, ConnectionResetError)


@asynccontextmanager
async def relaying_in(lab, **settings):
    """Run the tier in the lab's proxy with one server behind it."""
    async with open_lab_wire(lab) as wire, tcp_server(wire, name=b"a") as server:
        subject = await Subject.of(plugin, Settings(worker_threads=1, **settings))
        service = service_for(wire, server.backend)
        async with subject.running(service) as running:
            yield running, service, wire


async def dropped(running, service, reason: str) -> None:
    async def counted() -> bool:
        return (await running.stats_of(service)).drops.get(reason, 0) > 0

    await until(counted, what=f"a drop for {reason}")


async def test_a_backend_behind_a_black_hole_is_given_up_after_the_connect_timeout(lab):
    async with relaying_in(lab, connect_timeout=0.5) as (running, service, wire):
        prefix = f"{lab.server_ip.ip4}/32"
        await lab.proxy.blackhole(prefix)
        with trio.fail_after(20), pytest.raises(RESET):
            async with await wire.connect(service.listen[0]) as client:
                await receive_exactly(client, 1)

        async def counted() -> bool:
            drops = (await running.stats_of(service)).drops
            # A black-hole route answers connect(2) with an error; a filter that says nothing, with silence.
            return bool(drops.get("backend_timeout", 0) + drops.get("backend_refused", 0))

        await until(counted)
        await lab.proxy.clear_blackhole(prefix)
        with trio.fail_after(20):
            async with await wire.connect(service.listen[0]) as client:
                assert await receive_exactly(client, 1) == b"a"


async def test_a_server_that_vanishes_without_a_word_costs_the_client_the_idle_timeout_at_most(lab):
    async with relaying_in(lab, idle_timeout=1.0) as (running, service, wire):
        async with await wire.connect(service.listen[0]) as client:
            assert await receive_exactly(client, 1) == b"a"
            await lab.server.set_up("to_proxy", up=False)
            await client.send_all(b"anybody?")
            with trio.fail_after(20):
                assert await receive_exactly(client, 1) == b""
        await dropped(running, service, "idle_timeout")


async def test_without_a_free_source_port_clients_are_reset_and_the_backend_is_not_blamed(lab):
    async with relaying_in(lab) as (running, service, wire):
        await lab.proxy.set_sysctl("net.ipv4.ip_local_port_range", "40000 40001")
        fates = []
        clients = []
        with trio.fail_after(20):
            for _ in range(3):
                try:
                    clients.append(await wire.connect(service.listen[0]))
                    fates.append(await receive_exactly(clients[-1], 1))
                except RESET:
                    fates.append(b"reset")
        assert fates == [b"a", b"a", b"reset"]
        await dropped(running, service, "no_source_port")
        stats = attrs.asdict(await running.stats_of(service))
        assert stats["drops"] == {"no_source_port": 1}
        for client in clients:
            await client.aclose()


async def test_without_a_free_source_port_new_flows_are_refused_and_the_backend_is_not_blamed(lab):
    async with open_lab_wire(lab) as wire, udp_server(wire) as server:
        subject = await Subject.of(plugin, Settings(worker_threads=1))
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        await lab.proxy.set_sysctl("net.ipv4.ip_local_port_range", "40000 40001")
        async with subject.running(service) as running:
            clients = [await wire.connect_udp(service.listen[0]) for _ in range(3)]
            for client in clients[:2]:
                assert await ask_udp(client, b"hello") == b"hello"
            await clients[2].send(b"hello")
            await dropped(running, service, "no_source_port")
            assert await ask_udp(clients[0], b"still here") == b"still here"
            for client in clients:
                client.close()
