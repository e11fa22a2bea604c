"""A backend is flushed by a reload: what it has ends at once, what others have does not notice."""

from __future__ import annotations

import pytest

from marchproxy_core.testing import until

EVERY = 20
"""Connections after which a worker is replaced; it asks within a quarter of a second, so more may come before."""


async def reload(site, daemon, service, *backends):
    service.options["backends"] = list(backends)
    site.write(service)
    done = await daemon.run("reload")
    assert done.status == 0, done.errors


async def a_client_of_each(service, *names):
    clients = {}
    while not clients.keys() >= set(names):
        client = await service.call()
        clients.setdefault(client.server.decode(), client)
    return [clients[name] for name in names]


async def meets(service, *wanted):
    async def reached():
        return {await service.visit() for _ in range(20)} == set(wanted)

    await until(reached, what=f"new clients meet with {wanted}")


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_flushed_backend_loses_its_connections_and_comes_back(site, workers):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a, b)
    daemon = await site.start(web, worker_threads=workers)
    clients = [await web.call() for _ in range(12)]
    assert {client.server for client in clients} == {b"a", b"b"}
    lost = [client for client in clients if client.server == b"a"]
    await reload(site, daemon, web, a.backend() | {"flush": True}, b.backend())
    for client in clients:
        assert await (client.fate() if client in lost else client.echoes()) in ("reset", True)
    await meets(web, "b")
    await daemon.counts("marchproxy_drops_total", len(lost), service="web", reason="flushed")
    await daemon.counts("marchproxy_backend_connections_active", 0, backend=f"127.0.0.1:{a.port}")
    row = (await daemon.backends())[a.port]
    assert (row["state"], row["weight"], row["flush"], row["reason"]) == (
        "draining",
        0,
        True,
        "it is flushed",
    )
    await reload(site, daemon, web, a.backend(), b.backend())
    await meets(web, "a", "b")
    for client in clients:
        assert client in lost or await client.echoes()


async def test_a_backend_that_was_drained_and_taken_out_can_still_be_flushed(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a, b)
    daemon = await site.start(web)
    at_a, at_b = await a_client_of_each(web, "a", "b")
    await reload(site, daemon, web, a.backend(weight=0), b.backend())
    await meets(web, "b")
    assert await at_a.echoes()
    await reload(site, daemon, web, b.backend())
    assert await at_a.echoes()
    await reload(site, daemon, web, a.backend(weight=0) | {"flush": True}, b.backend())
    assert await at_a.fate() == "reset"
    await reload(site, daemon, web, b.backend())
    assert await at_b.echoes()


async def test_with_all_backends_flushed_nobody_is_served(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a, b)
    daemon = await site.start(web)
    clients = await a_client_of_each(web, "a", "b")
    await reload(site, daemon, web, a.backend() | {"flush": True}, b.backend() | {"flush": True})
    assert [await client.fate() for client in clients] == ["reset", "reset"]
    await meets(web, "reset")
    await daemon.counts_some("marchproxy_drops_total", service="web", reason="no_backend")


async def test_connections_of_a_worker_that_retires_are_flushed_too(site, processes):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a, b)
    daemon = await site.start(web, worker_threads=1, max_requests_per_worker=EVERY)
    (retiring,) = daemon.workers
    at_a, at_b = await a_client_of_each(web, "a", "b")
    for _ in range(EVERY):
        await web.visit()
    await daemon.told("worker.replaced", was=retiring)
    await reload(site, daemon, web, a.backend() | {"flush": True}, b.backend())
    assert await at_a.fate() == "reset"
    assert await at_b.echoes()
    assert processes.is_alive(retiring)


async def test_the_flows_of_a_flushed_udp_backend_move(site):
    a, b = await site.datagram_server("a"), await site.datagram_server("b")
    dns = site.service("dns", a, b, protocol="udp")
    daemon = await site.start(dns)
    clients = [await dns.talk() for _ in range(8)]
    before = [await client.asks() for client in clients]
    assert set(before) == {"a", "b"}
    await reload(site, daemon, dns, a.backend() | {"flush": True}, b.backend())
    await daemon.counts("marchproxy_drops_total", before.count("a"), service="dns", reason="flushed")
    assert {await client.asks() for client in clients} == {"b"}
    await daemon.counts("marchproxy_connections_opened_total", 8 + before.count("a"), service="dns")
