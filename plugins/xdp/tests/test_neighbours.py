"""Those whom packets to backends are handed to stay known, though nothing in the stack asks for them."""

from __future__ import annotations

import pytest

from marchproxy_core.packet.neighbours import Acquaintances, hops, keep_known
from marchproxy_core.packet.network import look_at_network
from marchproxy_core.testing.laws.traffic import echo_once, service_for
from marchproxy_core.testing.servers import tcp_server

pytestmark = pytest.mark.root

_PERMANENT = 0x80


async def test_a_neighbour_that_was_forgotten_is_asked_for(lab):
    for version in (4, 6):
        ip = lab.server_ip.of(version)
        network = await lab.proxy.call(look_at_network, [ip])
        await lab.proxy.run(["ip", "neigh", "flush", "dev", "to_server"])
        assert {hop[1] for hop in await lab.proxy.call(keep_known, network)} == {ip}
        assert await lab.proxy.call(Acquaintances(10.0).meet, network) == frozenset()


async def test_one_behind_a_router_is_the_routers_to_know(lab):
    await lab.proxy.run(["ip", "route", "add", "203.0.113.0/24", "via", str(lab.server_ip.ip4)])
    network = await lab.proxy.call(look_at_network, [type(lab.server_ip.ip4)("203.0.113.9")])
    assert {hop[1] for hop in hops(network)} == {lab.server_ip.ip4}
    assert await lab.proxy.call(Acquaintances(10.0).meet, network) == frozenset()


async def test_a_permanent_one_stays_so(lab, rig):
    network = await lab.proxy.call(look_at_network, [lab.silent_ip.ip4])
    assert await lab.proxy.call(keep_known, network) == frozenset()
    assert (await rig.neighbours())[str(lab.silent_ip.ip4)] == _PERMANENT


async def test_nobody_is_waited_for_in_vain(lab):
    ip = type(lab.server_ip.ip4)("198.18.1.77")
    network = await lab.proxy.call(look_at_network, [ip])
    acquaintances = Acquaintances(0.05)
    assert {hop[1] for hop in await lab.proxy.call(acquaintances.meet, network)} == {ip}
    assert await lab.proxy.call(acquaintances.meet, network) == frozenset()


async def test_the_tier_does_this_while_it_runs(lab, rig, wire):
    async with tcp_server(wire) as server:
        service = service_for(wire, server.backend)
        async with (await rig.subject()).running(service):
            assert await echo_once(wire, service.listen[0], b"before") == b"before"
            await lab.proxy.run(["ip", "neigh", "flush", "dev", "to_server"])
            await rig.until_known(lab.server_ip.ip4)
            assert await echo_once(wire, service.listen[0], b"after") == b"after"
