"""Backends and addresses come and go under services in the kernel: flows stay where they are, new ones follow."""

from __future__ import annotations

from collections import Counter

import pytest
from pyroute2 import IPRoute
from system_rig.packet_site import HOOKS

from marchproxy_core.testing import until

pytestmark = pytest.mark.root

CHECK = {"type": "tcp", "interval": 0.1, "timeout": 0.1, "rise": 2, "fall": 2}
CLIENTS = [f"198.18.0.{last}" for last in range(10, 250)]


async def three_services(packets, **options):
    servers = [await packets.server(name) for name in "abc"]
    web = packets.service("web", *servers, **options)
    return web, servers, await packets.start_on("ebpf", web)


async def met_by(service, count=40):
    return {await service.visit() for _ in range(count)}


async def meets(service, *wanted):
    async def reached():
        return await met_by(service) == set(wanted)

    await until(reached, deadline_s=30, what=f"new clients meet with {wanted}")


async def a_flow_to_each(service, servers):
    """Return a client of each backend, by its name."""
    clients = {}
    while len(clients) < len(servers):
        client = await service.call()
        clients.setdefault(client.server.decode(), client)
    return clients


async def reload(packets, daemon, *services):
    packets.write(*services)
    done = await daemon.run("reload")
    assert done.status == 0, done.errors


async def all_echo(clients):
    return [name for name, client in clients.items() if not await client.echoes()] == []


async def test_a_backend_is_drained_removed_and_added_and_no_flow_notices(packets):
    web, (a, b, c), daemon = await three_services(packets)
    clients = await a_flow_to_each(web, (a, b, c))
    web.options["backends"] = [a.backend(), b.backend(), c.backend(weight=0)]
    await reload(packets, daemon, web)
    await meets(web, "a", "b")
    assert await all_echo(clients)
    web.give(a)
    await reload(packets, daemon, web)
    await meets(web, "a")
    assert await all_echo(clients)
    web.give(a, b, c)
    await reload(packets, daemon, web)
    await meets(web, "a", "b", "c")
    assert await all_echo(clients)
    assert await daemon.metric("marchproxy_connections_opened_total", tier="sockets") == 0


async def test_a_flushed_backend_loses_its_flows_and_no_other_does(packets):
    web, (a, b, c), daemon = await three_services(packets)
    clients = await a_flow_to_each(web, (a, b, c))
    web.options["backends"] = [a.backend(), b.backend(), c.backend() | {"flush": True}]
    lost = sum(client.server == b"c" for client in web.clients)
    await reload(packets, daemon, web)
    await daemon.counts("marchproxy_drops_total", lost, tier="ebpf", service="web", reason="flushed")
    await meets(web, "a", "b")
    assert not await clients.pop("c").echoes()
    assert await all_echo(clients)
    web.give(a, b, c)
    await reload(packets, daemon, web)
    await meets(web, "a", "b", "c")
    assert await all_echo(clients)


async def test_the_udp_flows_of_a_flushed_backend_move_and_no_others(packets):
    a, b = [await packets.datagram_server(name) for name in "ab"]
    echo = packets.service("echo", a, b, protocol="udp")
    daemon = await packets.start_on("ebpf", echo)
    clients = [await echo.talk() for _ in range(20)]
    before = [await client.asks() for client in clients]
    assert set(before) == {"a", "b"}
    await daemon.counts("marchproxy_connections_opened_total", len(clients), tier="ebpf")
    echo.options["backends"] = [a.backend() | {"flush": True}, b.backend()]
    await reload(packets, daemon, echo)
    await daemon.counts("marchproxy_drops_total", before.count("a"), service="echo", reason="flushed")
    assert {await client.asks() for client in clients} == {"b"}
    opened = len(clients) + before.count("a")
    await daemon.counts("marchproxy_connections_opened_total", opened, tier="ebpf")
    await daemon.counts("marchproxy_connections_active", len(clients), tier="ebpf")


async def test_a_service_that_a_reload_takes_out_is_drained_and_the_other_does_not_notice(packets):
    web, (a, *_), daemon = await three_services(packets)
    other = packets.service("other", a)
    await reload(packets, daemon, web, other)
    await packets.carried_by(daemon, "ebpf", other)
    staying, leaving = await web.call(), await other.call()
    await reload(packets, daemon, web)
    assert await leaving.echoes()
    await daemon.told("drain.cut_off", services=["other"])
    assert await staying.echoes()
    assert not packets.hooks_of(other)
    assert await other.visit() == "refused"


async def test_a_backend_that_fails_its_checks_gets_no_new_flows_until_it_is_back(packets):
    web, (_, b, c), daemon = await three_services(packets, health_check=CHECK)
    await daemon.has_backend(c.port, "up")
    clients = await a_flow_to_each(web, "abc")
    await c.stop()
    await daemon.has_backend(c.port, "down")
    await meets(web, "a", "b")
    assert await all_echo(clients)
    await b.stop()
    await meets(web, "a")
    await b.start()
    await c.start()
    await meets(web, "a", "b", "c")
    assert await all_echo(clients)


async def test_with_maglev_hardly_any_client_moves_but_those_of_the_backend_that_is_gone(packets):
    servers = [await packets.server(name) for name in "abcde"]
    web = packets.service("web", *servers, balance="maglev")
    daemon = await packets.start_on("ebpf", web)
    for client in CLIENTS:
        await packets.lab.client.add_address(f"{client}/24", "to_proxy")
    before = {client: await web.visit(source=client) for client in CLIENTS}
    assert before == {client: await web.visit(source=client) for client in CLIENTS}
    assert min(Counter(before.values()).values()) >= len(CLIENTS) / 5 * 0.5

    web.give(*servers[:-1])
    await reload(packets, daemon, web)

    async def e_is_gone():
        return "e" not in {await web.visit(source=client) for client in CLIENTS if before[client] == "e"}

    await until(e_is_gone, what="nobody meets the backend that is gone")
    after = {client: await web.visit(source=client) for client in CLIENTS}
    moved = [client for client in CLIENTS if before[client] not in ("e", after[client])]
    assert len(moved) <= 0.08 * len(CLIENTS), f"{len(moved)} moved without need"


@pytest.mark.parametrize("version", [4, 6])
async def test_a_wildcard_follows_the_addresses_of_the_host(packets, version):
    lab = packets.lab
    front, added = str(lab.front_ip.of(version)), {4: "198.18.0.9", 6: "2001:db8:c::9"}[version]
    length = {4: 24, 6: 64}[version]
    server = await packets.server(ip=str(lab.server_ip.of(version)))
    web = packets.service("web", server, ip=front)
    web.options["listen"] = {4: "0.0.0.0", 6: "[::]"}[version] + f":{web.port}"
    daemon = await packets.start_on("ebpf", web)
    assert await web.visit() == "a"

    await lab.proxy.add_address(f"{added}/{length}", "to_client")
    await until(lambda: bool(packets.hooks_of(web, added)), deadline_s=1, what="the new address is served")
    assert await web.visit(ip=added) == "a"
    await daemon.counts("marchproxy_connections_opened_total", 2, tier="ebpf")

    await lab.proxy.call(_remove_address, added, length, "to_client")
    await until(lambda: not packets.hooks_of(web, added), deadline_s=1, what="the address is not served")
    assert packets.hooks_of(web) & HOOKS["ebpf"].bit
    assert await web.visit() == "a"


def _remove_address(ip: str, length: int, interface: str) -> None:
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname=interface)
        netlink.addr("del", index=index, address=ip, prefixlen=length)
