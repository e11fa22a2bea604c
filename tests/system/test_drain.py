"""The daemon's end: it takes nothing new, lets connections end, and leaves nothing behind."""

from __future__ import annotations

import os
import signal

import pytest

from marchproxy_core.testing import until


async def by_signal(daemon):
    daemon.signal(signal.SIGTERM)


async def by_command(daemon):
    result = await daemon.run("drain")
    assert result.status == 0, result.errors
    assert result.output.startswith("draining: connections have ")


async def by_request(daemon):
    assert (await daemon.ask("/admin/drain", "POST")).status_code == 202


@pytest.mark.parametrize("begin", [by_signal, by_command, by_request])
async def test_a_drain_takes_nobody_new_lets_connections_end_and_exits_with_0(site, begin):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    client = await web.call()
    await begin(daemon)
    await daemon.told("drain.started")

    async def is_refused():
        return await web.visit() == "refused"

    await until(is_refused, what="new clients are refused")
    assert await daemon.answers("/readyz", 503)
    assert await client.echoes()
    assert daemon.process.poll() is None
    assert await client.end() == "ended"
    assert await daemon.exit_status() == 0
    assert daemon.events("drain.finished")
    assert daemon.events("daemon.stopped")


async def test_a_daemon_without_connections_drains_at_once(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, drain_timeout=3600)
    daemon.signal(signal.SIGTERM)
    assert await daemon.exit_status() == 0
    assert not daemon.events("drain.cut_off")


async def test_connections_that_outlast_the_drain_timeout_are_cut_and_the_exit_status_is_0(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, drain_timeout=1)
    client = await web.call()
    daemon.signal(signal.SIGTERM)
    assert await client.fate() == "reset"
    assert await daemon.exit_status() == 0
    assert [event["services"] for event in daemon.events("drain.cut_off")] == [["web"]]


async def test_a_second_signal_ends_the_daemon_at_once(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, drain_timeout=3600)
    client = await web.call()
    daemon.signal(signal.SIGINT)
    await daemon.told("drain.started")
    daemon.signal(signal.SIGTERM)
    assert await daemon.exit_status() == 0
    assert await client.fate() == "reset"


async def test_clients_in_the_accept_queue_when_a_drain_begins_are_served(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    for worker in daemon.workers:
        os.kill(worker, signal.SIGSTOP)
    waiting = [await web.knock() for _ in range(40)]
    daemon.signal(signal.SIGTERM)
    await daemon.told("drain.started")
    for worker in daemon.workers:
        os.kill(worker, signal.SIGCONT)
    for client in waiting:
        assert await client.hears() == b"a"
        assert await client.echoes()
        assert await client.end() == "ended"
    assert await daemon.exit_status() == 0


async def test_a_drain_hears_of_no_reload(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    client = await web.call()
    daemon.signal(signal.SIGTERM)
    await daemon.told("drain.started")
    result = await daemon.run("reload")
    assert result.status == 5
    assert "draining" in result.errors
    assert await client.end() == "ended"
    assert await daemon.exit_status() == 0


async def test_signals_to_the_whole_process_group_drain_too(site):
    """As by Ctrl-C, or by a service manager: workers leave them to the control process."""
    web = site.service("web", await site.server())
    daemon = await site.start(web)
    client = await web.call()
    for pid in (*daemon.workers, daemon.pid):
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGTERM)
    await daemon.told("drain.started")
    assert await client.echoes()
    assert await client.end() == "ended"
    assert await daemon.exit_status() == 0


async def test_a_drain_timeout_of_0_cuts_at_once(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, drain_timeout=0)
    client = await web.call()
    daemon.signal(signal.SIGTERM)
    assert await daemon.exit_status() == 0
    assert await client.fate() == "reset"


async def test_a_worker_that_dies_in_a_drain_does_not_hold_it_up(site):
    web = site.service("web", await site.server())
    daemon = await site.start(web, drain_timeout=3600, worker_threads=1)
    client = await web.call()
    daemon.signal(signal.SIGTERM)
    await daemon.told("drain.started")
    os.kill(daemon.workers[0], signal.SIGKILL)
    assert await client.fate() in ("reset", "ended")  # the kernel's choice
    assert await daemon.exit_status() == 0


async def test_a_signal_while_it_starts_ends_the_daemon_with_0(site):
    web = site.service("web", await site.server())
    site.write(web)
    daemon = await site.launch()
    await daemon.told("admin.started")
    daemon.signal(signal.SIGTERM)
    assert await daemon.exit_status() == 0
