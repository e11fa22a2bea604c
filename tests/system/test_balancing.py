"""Which backend new clients get, over all workers of a daemon."""

from __future__ import annotations

from collections import Counter

import pytest

from marchproxy_core.testing import until


async def shares(service, count):
    """Return how many of so many clients, one after another, got which backend."""
    return Counter([await service.visit() for _ in range(count)])


@pytest.mark.parametrize("workers", [1, 2])
async def test_round_robin_keeps_to_the_weights(site, workers):
    a, b, c = [await site.server(name) for name in "abc"]
    web = site.service("web", balance="round_robin")
    web.options["backends"] = [a.backend(weight=3), b.backend(weight=2), c.backend(weight=1)]
    await site.start(web, worker_threads=workers)
    met = await shares(web, 120)
    assert met.total() == 120
    for name, share in (("a", 60), ("b", 40), ("c", 20)):
        assert abs(met[name] - share) <= 2 * (workers - 1)  # each worker takes its own turns


async def test_least_connections_fills_up_evenly_and_then_the_one_that_got_free(site):
    a, b, c = [await site.server(name) for name in "abc"]
    web = site.service("web", a, b, c, balance="least_connections")
    daemon = await site.start(web)
    clients = [await web.call() for _ in range(30)]
    assert Counter(client.server for client in clients) == {b"a": 10, b"b": 10, b"c": 10}
    await daemon.counts("marchproxy_backend_connections_active", 30)
    for client in clients:
        if client.server == b"b":
            assert await client.end() == "ended"
    await daemon.counts("marchproxy_backend_connections_active", 20)
    assert [(await web.call()).server for _ in range(10)] == [b"b"] * 10
    await daemon.counts("marchproxy_backend_connections_active", 30)


async def test_random_uses_every_backend_and_prefers_the_less_loaded(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a, b, balance="random")
    daemon = await site.start(web)
    assert set(await shares(web, 60)) == {"a", "b"}
    await daemon.counts("marchproxy_connections_opened_total", 60)
    await daemon.counts("marchproxy_backend_connections_active", 0)
    # Of two the less loaded one is always taken, so neither is ever more than one ahead.
    held = Counter([(await web.call()).server for _ in range(40)])
    assert held == {b"a": 20, b"b": 20}


async def test_maglev_keeps_clients_at_their_backends_also_over_a_reload_that_adds_one(site):
    servers = [await site.server(name) for name in "abc"]
    web = site.service("web", *servers, balance="maglev")
    daemon = await site.start(web)
    sources = [f"127.0.1.{last}" for last in range(1, 101)]
    before = {source: await web.visit(source=source) for source in sources}
    assert set(before.values()) == {"a", "b", "c"}
    assert {source: await web.visit(source=source) for source in sources} == before

    web.give(*servers, await site.server("d"))
    site.write(web)
    assert (await daemon.run("reload")).status == 0

    async def is_followed():
        return "d" in await shares_of(web, sources)

    await until(is_followed, what="the new backend is used")
    after = {source: await web.visit(source=source) for source in sources}
    moved = [source for source in sources if after[source] != before[source]]
    assert len(moved) <= 50  # a quarter belongs to the new one
    assert sum(after[source] == "d" for source in moved) >= len(moved) * 0.6


async def shares_of(service, sources):
    return {await service.visit(source=source) for source in sources}


async def test_maglev_spares_clients_of_other_backends_when_one_goes_down(site):
    servers = [await site.server(name) for name in "abc"]
    check = {"type": "tcp", "interval": 0.1, "timeout": 0.1, "fall": 1}
    web = site.service("web", *servers, balance="maglev", health_check=check)
    daemon = await site.start(web)
    sources = [f"127.0.1.{last}" for last in range(1, 61)]
    before = {source: await web.visit(source=source) for source in sources}
    await servers[1].stop()
    await daemon.has_backend(servers[1].port, "down")
    after = {source: await web.visit(source=source) for source in sources}
    assert "b" not in after.values()
    spared = [source for source in sources if before[source] != "b"]
    assert sum(after[source] == before[source] for source in spared) >= len(spared) * 0.8


async def test_weight_0_drains_a_backend(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a, b)
    daemon = await site.start(web)
    clients = [await web.call() for _ in range(10)]
    assert {client.server for client in clients} == {b"a", b"b"}
    web.options["backends"] = [a.backend(weight=0), b.backend()]
    site.write(web)
    assert (await daemon.run("reload")).status == 0
    await daemon.has_backend(a.port, "draining")

    async def is_followed():
        return set(await shares(web, 20)) == {"b"}

    await until(is_followed, what="new clients go to b alone")
    assert set(await shares(web, 40)) == {"b"}
    for client in clients:
        assert await client.echoes()
    held = sum(client.server == b"a" for client in clients)
    await daemon.counts("marchproxy_backend_connections_active", held, backend=f"127.0.0.1:{a.port}")
    for client in clients:
        assert await client.end() == "ended"
    await daemon.counts("marchproxy_backend_connections_active", 0, backend=f"127.0.0.1:{a.port}")
