"""Workers that are replaced after ``MAX_REQUESTS_PER_WORKER``: nobody is refused, and what is established goes on."""

from __future__ import annotations

EVERY = 20
"""Connections after which a worker is replaced; it asks within a quarter of a second, so more may come before."""


async def visits(service, count):
    assert [await service.visit() for _ in range(count)] == ["a"] * count


async def test_workers_are_replaced_and_no_client_notices(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, max_requests_per_worker=10 * EVERY)
    first, opened = set(daemon.workers), 0
    while len(daemon.events("worker.replaced")) < 2:
        await visits(web, EVERY)
        opened += EVERY
    await site.gone(*first)
    await daemon.counts("marchproxy_connections_opened_total", opened, service="web")
    assert not daemon.events("worker.died")


async def test_connections_of_a_retired_worker_go_on_and_it_ends_with_the_last(site, processes):
    web = site.service("web", await site.server())
    daemon = await site.start(web, worker_threads=1, max_requests_per_worker=EVERY)
    (retiring,) = daemon.workers
    held = await web.call()
    await visits(web, EVERY)
    await daemon.told("worker.replaced", was=retiring)
    await visits(web, 5)
    assert await held.echoes()
    assert processes.is_alive(retiring)
    assert await held.end() == "ended"
    await site.gone(retiring)


async def test_connections_may_outlast_several_generations_of_workers(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, worker_threads=1, max_requests_per_worker=EVERY)
    held = []
    for generation in (1, 2, 3):
        held.append(await web.call())
        await visits(web, EVERY)
        await daemon.told("worker.replaced", generation, deadline_s=5)
        for client in held:
            assert await client.echoes()
    assert not daemon.events("tier.demoted")
