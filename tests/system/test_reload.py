"""A reload is a diff: what did not change is left alone, and a file with errors changes nothing."""

from __future__ import annotations

import json
import os
import signal

import pytest
import trio

from marchproxy_core.testing import until


async def by_signal(daemon):
    count = len(daemon.events("config.reloaded"))
    daemon.signal(signal.SIGHUP)
    await daemon.told("config.reloaded", count + 1)


async def by_command(daemon):
    result = await daemon.run("reload")
    assert result.status == 0, result.errors


async def by_request(daemon):
    response = await daemon.ask("/admin/reload", "POST")
    assert response.status_code == 200, response.text


ways = pytest.mark.parametrize("reload", [by_signal, by_command, by_request])


async def visited(service, want):
    """Wait until a new client meets with this; workers follow a reload within moments."""

    async def reached():
        return await service.visit() == want

    await until(reached, what=f"a new client of {service.name} meets with {want}")


@ways
async def test_a_reload_keeps_moves_drains_and_adds_each_where_it_applies(site, reload):
    a, b = await site.server("a"), await site.server("b")
    same, changed, removed = (site.service(name, a) for name in ("same", "changed", "removed"))
    added = site.service("added", b)
    daemon = await site.start(same, changed, removed)
    clients = [await service.call() for service in (same, changed, removed)]

    changed.give(b)
    site.write(same, changed, added)
    await reload(daemon)

    await visited(changed, "b")
    await visited(removed, "refused")
    await visited(added, "b")
    await visited(same, "a")
    for client in clients:
        assert await client.echoes()
        assert client.server == b"a"
    (event,) = daemon.events("config.reloaded")
    assert (event["added"], event["changed"], event["removed"]) == (["added"], ["changed"], ["removed"])
    assert not daemon.events("drain.finished")
    for client in clients:
        assert await client.end() == "ended"
    await daemon.told("drain.finished", services=["removed"])
    assert "removed" not in {row["service"] for row in (await daemon.backends()).values()}


async def test_connections_of_a_removed_service_are_cut_after_the_drain_timeout(site):
    a = await site.server()
    same, removed = site.service("same", a), site.service("removed", a)
    daemon = await site.start(same, removed, drain_timeout=1)
    client, other = await removed.call(), await same.call()
    site.write(same)
    await by_command(daemon)
    assert await client.fate() == "reset"
    await daemon.told("drain.cut_off", services=["removed"])
    assert await other.echoes()
    assert await other.end() == "ended"


async def test_a_service_that_comes_back_while_it_drains_keeps_its_connections(site):
    a, b = await site.server("a"), await site.server("b")
    same, web = site.service("same", a), site.service("web", a)
    daemon = await site.start(same, web, drain_timeout=1)
    client = await web.call()
    site.write(same)
    await by_command(daemon)
    await visited(web, "refused")
    web.give(b)
    site.write(same, web)
    await by_command(daemon)
    await visited(web, "b")
    gone = site.service("gone", a)
    for services in (
        (same, web, gone),
        (same, web),
    ):  # a later drain comes to its end: the first one's has passed
        site.write(*services)
        await by_command(daemon)
    await daemon.told("drain.finished", services=["gone"])
    assert await client.echoes()
    assert await client.end() == "ended"


async def test_a_service_that_moves_to_another_port_leaves_the_old_one(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    client = await web.call()
    moved = site.service("web")
    moved.options = web.options
    site.write(moved)
    await by_command(daemon)
    await visited(moved, "a")
    await visited(web, "refused")
    assert await client.echoes()
    assert await client.end() == "ended"


def spoil(site, web):
    """Write a file with two errors."""
    site.write(web)
    written = json.loads(site.config.read_text())
    written["settings"]["idle_timeout"] = "soon"
    written["services"][0]["backends"] = [{"ip": "nowhere", "port": 1}]
    site.config.write_text(json.dumps(written, indent=1))


async def test_a_bad_file_changes_nothing_and_every_error_is_said(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    client = await web.call()
    spoil(site, web)

    result = await daemon.run("reload")
    assert result.status == 2
    response = await daemon.ask("/admin/reload", "POST")
    assert response.status_code == 422
    daemon.signal(signal.SIGHUP)
    await daemon.told("config.refused")
    problems = json.dumps(response.json()["problems"])
    for said in (result.errors, problems, daemon.events("config.refused")[0]["error"]):
        for word in ("marchproxy.yaml:", "idle_timeout", "soon", "nowhere"):
            assert word in said

    assert await client.echoes()
    assert await web.visit() == "a"
    assert not daemon.events("config.reloaded")
    assert await client.end() == "ended"


async def test_a_new_address_that_is_in_use_changes_nothing_and_its_holder_is_named(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a)
    daemon = await site.start(web)
    taken = site.service("taken", a)
    taken.port = b.port
    web.give(b)
    site.write(web, taken)
    result = await daemon.run("reload")
    assert result.status != 0
    for word in ("service 'taken' cannot listen", f"127.0.0.1:{b.port}", "in use by", "fix:"):
        assert word in result.errors
    assert await web.visit() == "a"


async def test_a_changed_connection_limit_acts_in_the_running_workers(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    clients = [await web.call() for _ in range(3)]
    web.options["max_connections"] = 3
    site.write(web)
    await by_command(daemon)
    await visited(web, "reset")
    web.options["max_connections"] = 4
    site.write(web)
    await by_command(daemon)
    await visited(web, "a")
    site.write(web, global_max_connections=3)
    await by_command(daemon)
    await visited(web, "reset")
    for client in clients:
        assert await client.echoes()
        assert await client.end() == "ended"


async def test_a_changed_idle_timeout_acts_on_new_connections(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, idle_timeout=3600)
    site.write(web, idle_timeout=0.5)
    await by_command(daemon)

    fates = []

    async def is_ended():
        nursery.start_soon(idle)
        return bool(fates)

    async def idle():
        client = await web.call()
        fates.append(await client.fate())

    async with trio.open_nursery() as nursery:  # a worker may not have heard yet when the first ones come
        await until(is_ended, deadline_s=20, what="an idle client is sent away")
        nursery.cancel_scope.cancel()
    assert set(fates) == {"ended"}

    async def is_counted():
        return await daemon.metric("marchproxy_drops_total", service="web", reason="idle_timeout") >= len(
            fates
        )

    await until(is_counted, what="they are counted")


async def test_a_changed_idle_timeout_acts_on_established_connections(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, idle_timeout=3600, connect_timeout=0.1)
    client = await web.call()
    await daemon.counts("marchproxy_connections_opened_total", 1, service="web")
    assert await client.echoes()
    # The next snapshot comes a second later: by then the connection has its new deadline, that of its idle timeout.
    await daemon.counts("marchproxy_bytes_transferred_total", 4, service="web", direction="in")
    site.write(web, idle_timeout=0.5)
    await by_command(daemon)
    with trio.fail_after(3):
        assert await client.fate() == "ended"


async def test_clients_in_the_accept_queue_of_an_address_that_goes_away_are_served(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    for worker in daemon.workers:
        os.kill(worker, signal.SIGSTOP)
    waiting = [await web.knock() for _ in range(400)]
    moved = site.service("web")
    moved.options = web.options
    site.write(moved)
    await by_command(daemon)
    for worker in daemon.workers:
        os.kill(worker, signal.SIGCONT)
    for client in waiting:
        assert await client.hears() == b"a"


async def test_clients_in_the_accept_queue_of_a_removed_service_are_served(site):
    a = await site.server()
    web, other = site.service("web", a), site.service("other", a)
    daemon = await site.start(web, other)
    for worker in daemon.workers:
        os.kill(worker, signal.SIGSTOP)
    waiting = [await web.knock() for _ in range(400)]
    site.write(other)
    await by_command(daemon)
    for worker in daemon.workers:
        os.kill(worker, signal.SIGCONT)
    for client in waiting:
        assert await client.hears() == b"a"


async def test_a_service_that_changes_its_protocol_serves_the_new_one(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    web.options["protocol"] = "udp"
    web.give(await site.datagram_server("u"))
    site.write(web)
    await by_command(daemon)
    await visited(web, "refused")
    assert await (await web.talk()).asks() == "u"


async def test_a_file_that_is_gone_changes_nothing(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    site.config.unlink()
    result = await daemon.run("reload")
    assert (result.status, "marchproxy.yaml" in result.errors) == (2, True)
    daemon.signal(signal.SIGHUP)
    await daemon.told("config.refused")
    assert await web.visit() == "a"


async def test_reloads_that_add_and_remove_services_leave_no_descriptor_behind(site, processes):
    a = await site.server()
    web = site.service("web", a)
    daemon = await site.start(web)

    def held():
        return {pid: processes.descriptors(pid) for pid in (daemon.pid, *daemon.workers)}

    before = held()
    for _ in range(8):
        site.write(web, *[site.service(f"more{number}", a) for number in range(10)])
        await by_signal(daemon)
        site.write(web)
        await by_signal(daemon)
    # Hypercorn keeps the connections that asked whether the daemon is ready for 5 s after their clients have gone.
    await until(
        lambda: all(count <= before[pid] for pid, count in held().items()),
        deadline_s=20,
        what="no process holds more than before",
    )


async def test_a_setting_that_takes_a_restart_is_named_and_left(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    workers = daemon.workers
    site.write(web, worker_threads=3)
    result = await daemon.run("reload")
    assert result.status == 0
    assert "needs restart: WORKER_THREADS" in result.output
    assert daemon.workers == workers
    assert await web.visit() == "a"


async def test_reloads_in_a_row_with_clients_all_the_while_lose_nobody(site):
    a, b = await site.server("a"), await site.server("b")
    web = site.service("web", a)
    daemon = await site.start(web)
    met = set()
    for turn in range(10):
        web.give(b if turn % 2 else a)
        site.write(web)
        daemon.signal(signal.SIGHUP)
        met |= {await web.visit() for _ in range(20)}
    # Signals that come while one is waiting are taken as one, so there may be fewer reloads; the last word counts.

    async def last_is_in_effect() -> bool:
        return {await web.visit() for _ in range(8)} == {"b"}

    await until(last_is_in_effect, deadline_s=30)
    assert daemon.events("config.reloaded")
    assert met <= {"a", "b"}
