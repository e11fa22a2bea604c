"""XDP and TC on the same tables: one goes on with the other's flows, and each carries what it is to carry."""

from __future__ import annotations

import importlib
from contextlib import AsyncExitStack

import attrs
import pytest

from marchproxy_core.config import XdpMode
from marchproxy_core.model import Role
from marchproxy_core.testing import until
from marchproxy_core.testing.laws.traffic import echo_once, service_for
from marchproxy_core.testing.pytest_plugin import leave_out
from marchproxy_core.testing.servers import tcp_server

pytestmark = pytest.mark.root


@pytest.fixture
def ebpf():
    try:
        return importlib.import_module("marchproxy_ebpf.plugin")
    except ModuleNotFoundError:
        leave_out("needs the ebpf tier: pip install marchproxy-ebpf")


async def packets_of(running, service):
    """Packets that a tier forwarded for a service."""
    stats = await running.stats_of(service)
    return stats.packets_in, stats.packets_out


async def grows(running, service, before):
    async def more():
        now = await packets_of(running, service)
        return now[0] > before[0] and now[1] > before[1]

    await until(more, what="packets through this tier")


@pytest.mark.parametrize("leaves", ["xdp", "ebpf"])
async def test_flows_outlive_the_loss_of_either(rig, wire, ebpf, leaves):
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(tcp_server(wire))
        service = service_for(wire, server.backend)
        below = await stack.enter_async_context((await rig.subject(ebpf)).running(service, role=Role.ARMED))
        above_stack = await stack.enter_async_context(AsyncExitStack())
        above = await above_stack.enter_async_context((await rig.subject()).running(service))
        client = await stack.enter_async_context(await wire.connect(service.listen[0]))
        await rig.exchange(client)
        await grows(above, service, (0, 0))
        assert await packets_of(below, service) == (0, 0)
        if leaves == "xdp":
            await above_stack.aclose()
            await rig.exchange(client)
            await grows(below, service, (0, 0))
        else:
            below.remove(service)
            before = await packets_of(above, service)
            await rig.exchange(client)
            await grows(above, service, before)


async def test_a_flow_that_tc_opened_goes_on_when_xdp_takes_over_and_tc_leaves(rig, wire, ebpf):
    async with (
        tcp_server(wire) as server,
        (await rig.subject(ebpf)).running(service := service_for(wire, server.backend)) as below,
        await wire.connect(service.listen[0]) as client,
    ):
        await rig.exchange(client)
        async with (await rig.subject()).running(service) as above:
            await rig.exchange(client)
            await grows(above, service, (0, 0))
            below.remove(service)
            before = await packets_of(above, service)
            await rig.exchange(client)
            await grows(above, service, before)


async def test_each_carries_the_service_that_is_pinned_to_it(rig, wire, ebpf):
    async with tcp_server(wire) as server:
        for_xdp, for_ebpf = (
            attrs.evolve(service_for(wire, server.backend, name=tier), tier=tier) for tier in ("xdp", "ebpf")
        )
        async with (
            (await rig.subject(ebpf)).running(for_ebpf) as below,
            (await rig.subject()).running(for_xdp) as above,
        ):
            for service in (for_xdp, for_ebpf):
                assert await echo_once(wire, service.listen[0], b"x" * 3000) == b"x" * 3000
            await grows(above, for_xdp, (0, 0))
            await grows(below, for_ebpf, (0, 0))
            assert await packets_of(above, for_ebpf) == await packets_of(below, for_xdp) == (0, 0)
            assert (await above.stats()).packets_seen["other_tier"] > 0


async def test_a_client_that_was_forgotten_is_found_again_through_tc(rig, wire, ebpf):
    async with (
        tcp_server(wire) as server,
        (await rig.subject(ebpf)).running(service := service_for(wire, server.backend), role=Role.ARMED),
        (await rig.subject()).running(service) as above,
        await wire.connect(service.listen[0]) as client,
    ):
        await rig.exchange(client)

        async def xdp_knew_no_neighbour():
            await rig.forget_client()
            await rig.exchange(client)
            return (await above.stats()).packets_seen.get("no_neighbour", 0) > 0

        await until(xdp_knew_no_neighbour, what="a packet whose neighbour XDP does not know")
        await rig.exchange(client)


async def test_joined_packets_go_to_tc_in_generic_mode(rig, wire, ebpf):
    mode = {"xdp_mode": XdpMode.SKB}
    payload = bytes(range(256)) * 16384
    async with (
        tcp_server(wire) as server,
        (await rig.subject(ebpf)).running(
            service := service_for(wire, server.backend), role=Role.ARMED
        ) as below,
        (await rig.subject(**mode)).running(service) as above,
        await wire.connect(service.listen[0]) as client,
    ):
        await rig.exchange(client, payload)
        await grows(above, service, (0, 0))
        await grows(below, service, (0, 0))
