"""Limits hold over all workers; who is refused is reset and counted by reason."""

from __future__ import annotations

from collections import Counter

from marchproxy_core.testing import until


async def test_a_services_max_connections_holds_over_all_workers(site):
    a = await site.server()
    web, other = site.service("web", a, max_connections=4), site.service("other", a)
    daemon = await site.start(web, other)
    clients = [await web.call() for _ in range(4)]
    assert [await web.visit() for _ in range(10)] == ["reset"] * 10
    assert await other.visit() == "a"
    await daemon.counts("marchproxy_drops_total", 10, service="web", reason="max_connections")
    await daemon.counts("marchproxy_connections_active", 4, service="web")
    assert await daemon.metric("marchproxy_connections_opened_total", service="web") == 4
    assert await clients.pop().end() == "ended"
    await daemon.counts("marchproxy_connections_active", 3, service="web")
    assert await web.visit() == "a"
    for client in clients:
        assert await client.echoes()


async def test_service_max_connections_is_each_services_own(site):
    a = await site.server()
    web, other = site.service("web", a), site.service("other", a, max_connections=2)
    daemon = await site.start(web, other, service_max_connections=1)
    clients = [await web.call(), await other.call(), await other.call()]
    assert (await web.visit(), await other.visit()) == ("reset", "reset")
    await daemon.counts("marchproxy_drops_total", 1, service="web", reason="max_connections")
    await daemon.counts("marchproxy_drops_total", 1, service="other", reason="max_connections")
    for client in clients:
        assert await client.echoes()


async def test_global_max_connections_holds_over_all_services(site):
    a = await site.server()
    web, other = site.service("web", a), site.service("other", a)
    daemon = await site.start(web, other, global_max_connections=3, max_connections=5)
    clients = [await web.call(), await other.call(), await web.call()]
    assert [await web.visit(), await other.visit()] == ["reset", "reset"]
    for name in ("web", "other"):
        await daemon.counts("marchproxy_drops_total", 1, service=name, reason="global_max_connections")
    assert await clients[1].end() == "ended"
    await daemon.counts("marchproxy_connections_active", 2)
    assert await web.visit() == "a"


async def test_connections_above_the_rate_are_refused_and_those_within_it_served(site):
    web = site.service("web", await site.server(), connection_rate=2)
    daemon = await site.start(web)
    met = Counter([await web.visit() for _ in range(60)])
    assert set(met) == {"a", "reset"}
    assert met["a"] >= 3  # a second's worth and one may come at once
    await daemon.counts("marchproxy_drops_total", met["reset"], service="web", reason="connection_rate")
    await daemon.counts("marchproxy_connections_opened_total", met["a"], service="web")

    async def is_served():
        return await web.visit() == "a"

    await until(is_served, what="a client is served, after a while")


async def test_the_global_rate_holds_over_all_services(site):
    a = await site.server()
    web, other = site.service("web", a), site.service("other", a)
    daemon = await site.start(web, other, global_connection_rate=2)
    met = Counter()
    for _ in range(30):
        met += Counter([await web.visit(), await other.visit()])
    assert set(met) == {"a", "reset"}
    await daemon.counts("marchproxy_drops_total", met["reset"], reason="global_connection_rate")
    await daemon.counts("marchproxy_connections_opened_total", met["a"])


async def test_above_max_memory_mb_new_clients_are_refused_and_counted_and_the_daemon_goes_on(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, max_memory_mb=16)  # less than the control process alone takes

    async def is_reset():
        return await web.visit() == "reset"

    await until(is_reset, what="a client is reset")
    await daemon.told("memory.ran_full")
    assert [await web.visit() for _ in range(10)] == ["reset"] * 10

    async def is_counted():
        return await daemon.metric("marchproxy_drops_total", service="web", reason="memory_limit") >= 11

    await until(is_counted, what="refusals are counted")
    assert await daemon.answers("/healthz")
    assert (await daemon.run("status")).status == 0
    assert not daemon.events("worker.died")
