"""Processes that are killed: a worker takes its own clients along and nobody else's, a daemon leaves nothing behind."""

from __future__ import annotations

import os
import signal

import trio

from marchproxy_core.testing import until

OVER = ("ended", "reset")
"""When a process dies, the kernel closes its sockets: with a reset where bytes were left unread, else with a FIN."""


def clients_of(processes, worker, clients):
    """Return the clients whose connections a worker holds; each has its port in /proc/net/tcp beside the inode."""
    held = {link.removeprefix("socket:[").removesuffix("]") for link in processes.sockets(worker)}
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    ports = {int(row[2].partition(":")[2], 16) for row in rows if row[9] in held}
    return [one for one in clients if one.stream.socket.getsockname()[1] in ports]


async def calls_to_every_worker(site, daemon, processes, service):
    """Call until each worker has clients; return them by worker."""
    clients = []
    while True:
        clients.append(await service.call())
        by_worker = {pid: clients_of(processes, pid, clients) for pid in daemon.workers}
        if all(len(held) >= 2 for held in by_worker.values()):
            return by_worker
        assert len(clients) < 200


async def test_a_killed_worker_takes_only_its_own_clients_along_and_nobody_is_refused_meanwhile(
    site, processes
):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    by_worker = await calls_to_every_worker(site, daemon, processes, web)
    (killed, lost), (survivor, others) = by_worker.items()
    os.kill(killed, signal.SIGKILL)
    for client in lost:
        assert await client.fate() in OVER
    met = [await web.visit() for _ in range(300)]
    assert met == ["a"] * 300
    await daemon.told("worker.replaced", was=killed)
    assert survivor in daemon.workers
    for client in others:
        assert await client.echoes()
        assert await client.end() == "ended"
    (event,) = daemon.events("worker.died")
    assert (event["pid"], event["how"]) == (killed, "was ended by signal 9")


async def test_clients_at_the_same_time_as_a_replacement_all_wait_and_are_served(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    met = []

    async def visit():
        met.append(await web.visit())

    async with trio.open_nursery() as nursery:
        killed = daemon.workers[0]
        os.kill(killed, signal.SIGKILL)
        await until(lambda: killed not in daemon.workers, what="the worker is dead")
        for _ in range(100):
            nursery.start_soon(visit)
    assert met == ["a"] * 100


async def test_counters_do_not_go_back_when_workers_are_killed(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    opened = 0
    for turn in (1, 2):
        for _ in range(10):
            client = await web.call()
            assert await client.echoes(b"x" * 100)
            assert await client.end() == "ended"
        opened += 10
        await daemon.counts("marchproxy_connections_opened_total", opened, service="web")
        await daemon.counts("marchproxy_bytes_transferred_total", 100 * opened, service="web", direction="in")
        await daemon.counts(
            "marchproxy_bytes_transferred_total", 101 * opened, service="web", direction="out"
        )
        for worker in daemon.workers:
            os.kill(worker, signal.SIGKILL)
        await daemon.told("worker.replaced", 2 * turn)
    await daemon.counts("marchproxy_connections_active", 0, service="web")


async def test_connections_of_a_killed_worker_are_not_counted_as_open_any_more(site, processes):
    a = await site.server()
    web = site.service("web", a)
    daemon = await site.start(web)
    (killed, lost), (_, others) = (await calls_to_every_worker(site, daemon, processes, web)).items()
    await daemon.counts("marchproxy_connections_active", len(lost) + len(others), service="web")
    os.kill(killed, signal.SIGKILL)
    await daemon.counts("marchproxy_connections_active", len(others), service="web")
    assert await daemon.metric("marchproxy_backend_connections_active", service="web") == len(others)
    for client in others:
        assert await client.end() == "ended"
    await daemon.counts("marchproxy_connections_active", 0, service="web")


async def test_a_worker_that_hangs_is_killed_and_replaced(site, processes):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    daemon.forgives.add("worker.hung")
    (hung, lost), (_, others) = (await calls_to_every_worker(site, daemon, processes, web)).items()
    os.kill(hung, signal.SIGSTOP)
    waiting = [await web.knock() for _ in range(20)]
    for client in lost:
        assert await client.fate() in OVER
    for client in waiting:
        assert await client.hears() == b"a"
        assert await client.end() == "ended"
    for client in others:
        assert await client.echoes()
        assert await client.end() == "ended"
    assert [event["pid"] for event in daemon.events("worker.hung")] == [hung]


async def test_a_worker_that_dies_again_and_again_is_replaced_after_growing_pauses(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    for _ in range(3):
        victim = daemon.workers[0]
        os.kill(victim, signal.SIGKILL)
        await daemon.told("worker.replaced", was=victim)
        assert [await web.visit() for _ in range(20)] == ["a"] * 20
    assert not daemon.events("tier.demoted")


async def test_workers_of_a_killed_daemon_end_by_themselves_and_a_new_one_has_the_ports_at_once(site):
    web = site.service("web", await site.server())
    port = site.service("admin").port
    first = await site.start(web, admin_listen=f"127.0.0.1:{port}")
    client, workers = await web.call(), first.workers
    assert len(workers) == 2
    first.process.kill()
    await first.exit_status()
    second = await site.start(web)
    assert await web.visit() == "a"
    assert await client.fate() in OVER
    await site.gone(*workers)
    assert await second.answers("/healthz")
    assert [await web.visit() for _ in range(20)] == ["a"] * 20


async def test_a_killed_daemons_unix_socket_is_replaced(site):
    web = site.service("web", await site.server())
    first = await site.start(web)
    first.process.kill()
    await first.exit_status()
    second = await site.start(web)
    assert await web.visit() == "a"
    assert second.events("admin.stale_socket_removed")


async def test_a_second_daemon_with_the_same_file_says_what_is_in_use_by_whom(site):
    web = site.service("web", await site.server())
    port = site.service("admin").port
    first = await site.start(web, admin_listen=f"127.0.0.1:{port}")
    second = await site.run("run", "--config", str(site.config))
    assert second.status == 4
    (error,) = [line for line in second.errors.splitlines() if line.startswith("error: ")]
    assert f"127.0.0.1:{port}: in use already by marchproxy (pid {first.pid})" in error
    assert "fix:" in error
    assert "Traceback" not in second.errors
    assert [await web.visit() for _ in range(20)] == ["a"] * 20


async def test_a_second_daemon_with_the_same_unix_socket_says_that_it_is_in_use(site):
    web = site.service("web", await site.server())
    first = await site.start(web)
    second = await site.run("run", "--config", str(site.config))
    assert second.status == 4
    assert f"{first.admin}: in use already" in second.errors
    assert "Traceback" not in second.errors
    assert await first.answers("/readyz")
    assert [await web.visit() for _ in range(20)] == ["a"] * 20
