"""UDP services of the whole daemon: flows over reloads, drains, deaths of workers and failures of backends."""

from __future__ import annotations

import os
import signal

import pytest

from marchproxy_core.testing import until

PATIENCE_S = 0.3
"""How long a client waits before it sends again, as clients of UDP do."""


def udp(site, *servers, **options):
    return site.service("dns", *servers, protocol="udp", **options)


async def answered_by(client, want):
    """Send again and again until the answer comes from there; workers hear of a change within moments."""

    async def reached():
        return await client.asks(wait_s=PATIENCE_S) == want

    await until(reached, deadline_s=20, what=f"answers come from {want}")


async def reload(daemon):
    result = await daemon.run("reload")
    assert result.status == 0, result.errors


async def test_datagrams_of_every_size_go_there_and_back_and_are_counted(site):
    dns = udp(site, await site.datagram_server())
    daemon = await site.start(dns)
    client = await dns.talk()
    sizes = [0, 1, 512, 1472, 1500, 9000, 65506]
    for size in sizes:
        assert await client.asks(os.urandom(size)) == "a"
    await daemon.counts("marchproxy_packets_total", len(sizes), service="dns", direction="in")
    await daemon.counts("marchproxy_packets_total", len(sizes), service="dns", direction="out")
    await daemon.counts("marchproxy_bytes_transferred_total", sum(sizes), service="dns", direction="in")
    await daemon.counts("marchproxy_connections_active", 1, service="dns")


async def test_a_reload_keeps_flows_at_their_backend_and_moves_new_ones(site):
    a, b = await site.datagram_server("a"), await site.datagram_server("b")
    dns = udp(site, a)
    daemon = await site.start(dns)
    old = await dns.talk()
    assert await old.asks() == "a"
    dns.give(b)
    site.write(dns)
    await reload(daemon)

    async def is_followed():
        return await (await dns.talk()).asks() == "b"

    await until(is_followed, what="a new flow goes to the new backend")
    assert await old.asks() == "a"


async def test_flows_end_after_the_idle_timeout(site):
    dns = udp(site, await site.datagram_server())
    daemon = await site.start(dns, idle_timeout=0.5)
    clients = [await dns.talk() for _ in range(10)]
    for client in clients:
        assert await client.asks() == "a"
    await daemon.counts("marchproxy_connections_opened_total", 10, service="dns")
    await daemon.counts("marchproxy_connections_active", 0, service="dns")
    assert await daemon.metric("marchproxy_backend_connections_active", service="dns") == 0
    for client in clients:  # and begin anew
        assert await client.asks() == "a"
    await daemon.counts("marchproxy_connections_opened_total", 20, service="dns")


async def test_a_drain_lets_flows_go_on_and_takes_no_new_ones(site):
    dns = udp(site, await site.datagram_server())
    daemon = await site.start(dns, drain_timeout=4)
    known = await dns.talk()
    assert await known.asks() == "a"
    daemon.signal(signal.SIGTERM)
    await daemon.told("drain.started")

    async def is_left_out():
        return await (await dns.talk()).asks(wait_s=PATIENCE_S) != "a"

    await until(is_left_out, what="a stranger gets no answer")  # workers hear of the drain within moments
    assert await known.asks() == "a"
    assert await daemon.exit_status() == 0
    assert [event["services"] for event in daemon.events("drain.cut_off")] == [["dns"]]


async def test_a_removed_services_flows_go_on_for_the_drain_timeout(site):
    a = await site.datagram_server()
    dns, other = udp(site, a), site.service("other", a, protocol="udp")
    daemon = await site.start(dns, other, drain_timeout=2)
    client, bystander = await dns.talk(), await other.talk()
    assert await client.asks() == "a"
    assert await bystander.asks() == "a"
    site.write(other)
    await reload(daemon)
    assert await client.asks() == "a"
    await daemon.told("drain.cut_off", services=["dns"])
    assert await bystander.asks() == "a"


async def test_flows_of_a_killed_worker_begin_anew(site):
    dns = udp(site, await site.datagram_server())
    daemon = await site.start(dns)
    clients = [await dns.talk() for _ in range(24)]
    for client in clients:
        assert await client.asks() == "a"
    await daemon.counts("marchproxy_connections_opened_total", 24, service="dns")
    killed = daemon.workers[0]
    os.kill(killed, signal.SIGKILL)
    await until(lambda: killed not in daemon.workers, what="the worker is gone")
    for client in clients:  # what comes meanwhile waits in the core's sockets
        assert await client.asks() == "a"
    await daemon.told("worker.replaced", was=killed)
    await daemon.counts("marchproxy_packets_total", 48, service="dns", direction="in")
    await daemon.counts("marchproxy_connections_active", 24, service="dns")


async def test_the_first_datagram_is_sent_again_to_another_backend_when_one_refuses(site):
    a = await site.datagram_server("a")
    nobody = site.nobody()
    dns = udp(site, a)
    dns.options["backends"].append(nobody)
    daemon = await site.start(dns)
    for _ in range(20):
        assert await (await dns.talk()).asks() == "a"
    await daemon.has_backend(nobody["port"], "ejected")


async def test_a_client_is_answered_again_once_its_backend_is_back(site):
    a = await site.datagram_server("a")
    dns = udp(site, a)
    daemon = await site.start(dns)
    client = await dns.talk()
    assert await client.asks() == "a"
    await a.stop()
    assert await client.asks(wait_s=PATIENCE_S) == "nothing"
    assert await client.asks(wait_s=PATIENCE_S) == "nothing"

    async def is_counted():
        return await daemon.metric("marchproxy_drops_total", service="dns", reason="backend_refused") >= 1

    await until(is_counted, what="the refusal is counted")
    await a.start()
    await answered_by(client, "a")


async def test_max_connections_counts_flows(site):
    dns = udp(site, await site.datagram_server(), max_connections=3)
    daemon = await site.start(dns)
    clients = [await dns.talk() for _ in range(3)]
    for client in clients:
        assert await client.asks() == "a"
    fourth = await dns.talk()
    assert await fourth.asks(wait_s=PATIENCE_S) == "nothing"
    await daemon.counts("marchproxy_drops_total", 1, service="dns", reason="max_connections")
    for client in clients:
        assert await client.asks() == "a"


@pytest.mark.parametrize("back", ["127.0.0.1", "::1"])
async def test_answers_come_from_the_address_that_was_asked(site, back):
    dns = udp(site, await site.datagram_server("a", back))
    dns.options["listen"] = str(dns.port)
    await site.start(dns)
    for ip in ("127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"):  # a connected socket hears its peer alone
        assert await (await dns.talk(ip=ip)).asks() == "a"


async def test_maglev_keeps_a_clients_flows_together(site):
    servers = [await site.datagram_server(name) for name in "abc"]
    dns = udp(site, *servers, balance="maglev")
    await site.start(dns)
    met = set()
    for last in range(1, 21):
        flows = [await dns.talk(source=f"127.0.1.{last}") for _ in range(3)]
        answers = {await flow.asks() for flow in flows}
        assert len(answers) == 1
        met |= answers
    assert met == {"a", "b", "c"}


async def test_a_tcp_and_a_udp_service_share_a_port(site):
    web, dns = site.service("web", await site.server("t")), udp(site, await site.datagram_server("u"))
    dns.port = web.port
    await site.start(web, dns)
    assert await web.visit() == "t"
    assert await (await dns.talk()).asks() == "u"
