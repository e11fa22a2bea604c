"""Workers, backends and the daemon that die or stand still: no half answer looks whole, and others go on."""

from __future__ import annotations

import os
import signal

import pytest
import trio
from system_rig.http2_client import Http2Client
from system_rig.web_client import ENDED, WebClient, ask
from system_rig.web_server import HALF
from system_rig.workshop import Workshop

from marchproxy_core.testing import until
from marchproxy_core.testing.servers import receive_all


@pytest.fixture
async def clients():
    """Where what belongs to clients runs."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


def ports_of(processes, worker):
    """Return the clients' ports of a worker's connections; /proc/net/tcp has each beside the inode."""
    held = {link.removeprefix("socket:[").removesuffix("]") for link in processes.sockets(worker)}
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    return {int(row[2].partition(":")[2], 16) for row in rows if row[9] in held}


async def asked_by_every_worker(site, daemon, processes, web):
    """Connect until each worker has two clients that were answered; return them by worker."""
    clients = []
    while len(clients) < 200:
        clients.append(await WebClient.to(web))
        assert (await clients[-1].ask()).status == 200
        ports = {pid: ports_of(processes, pid) for pid in daemon.workers}
        found = {
            pid: [one for one in clients if one.stream.socket.getsockname()[1] in held]
            for pid, held in ports.items()
        }
        if all(len(held) >= 2 for held in found.values()):
            return found
    raise AssertionError("one worker gets nobody")


async def test_a_killed_worker_takes_only_its_own_requests_along(site, processes):
    web = site.service("web", await site.web_server(), http=True)
    daemon = await site.start(web)
    by_worker = await asked_by_every_worker(site, daemon, processes, web)
    (killed, lost), (survivor, others) = by_worker.items()
    os.kill(killed, signal.SIGKILL)
    for client in lost:
        with pytest.raises(ENDED):
            await client.ask()
    for client in others:
        assert (await client.ask()).status == 200
    assert {(await ask(web)).status for _ in range(100)} == {200}
    await daemon.told("worker.replaced", was=killed)
    assert survivor in daemon.workers
    for client in others:
        assert (await client.ask()).status == 200


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_backend_that_ends_within_its_answer_has_its_client_reset(site, clients, secure):
    workshop = Workshop(site.directory)
    server = await site.web_server()
    web = site.service("web", server, **(workshop.tls() if secure else {"http": True}))
    daemon = await site.start(web)
    context, context2 = (workshop.client(), workshop.client("h2")) if secure else (None, None)
    # A FIN ends a body without a length as it should; all others are cut by it as well.
    ways = [
        ("length", "reset"),
        ("length", "fin"),
        ("chunked", "reset"),
        ("chunked", "fin"),
        ("rest", "reset"),
    ]
    met = {}

    async def by_http1(framing, end):
        client = await WebClient.to(web, context)
        with pytest.raises(ENDED):
            await client.ask(f"/half/{framing}/{end}")
        met["1.1", framing, end] = client.heard
        await client.close()

    async def by_http2(framing, end):
        client = await Http2Client.to(web, clients, context2)
        stream = await client.ask(f"/half/{framing}/{end}")
        await client.done(stream)
        assert not stream.is_over
        assert stream.reset_code is not None
        met["2", framing, end] = len(stream.body)
        # It is this stream's end alone.
        assert (await client.done(await client.ask())).body == b"a"

    async with trio.open_nursery() as nursery:
        for framing, end in ways:
            nursery.start_soon(by_http1, framing, end)
            nursery.start_soon(by_http2, framing, end)
        # All are in the middle of their answers when they break.
        await until(lambda: len(server.paths) == 2 * len(ways), deadline_s=30, what="all are asked")
        server.lets_go.set()
    assert set(met.values()) == {len(HALF)}
    await daemon.counts("marchproxy_drops_total", 2 * len(ways), service="web", reason="answer_cut")


async def test_half_an_answer_of_any_length_is_reset_for_a_client_of_http_1_0(site):
    server = await site.web_server()
    web = site.service("web", server, http=True)
    daemon = await site.start(web)
    server.lets_go.set()
    client = await web.knock()
    await client.stream.send_all(b"GET /half/rest/reset HTTP/1.0\r\nHost: a\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await receive_all(client.stream)
    await daemon.counts("marchproxy_drops_total", 1, service="web", reason="answer_cut")


async def test_a_backend_that_is_killed_and_comes_back_fails_nobody_who_has_another(site):
    a, b = await site.web_server("a"), await site.web_server("b")
    web, alone = site.service("web", a, b, http=True), site.service("alone", a, http=True)
    daemon = await site.start(web, alone)
    client = await WebClient.to(web)
    assert {(await client.ask()).text for _ in range(20)} == {"a", "b"}
    assert (await ask(alone)).text == "a"
    await a.die()
    assert {(await client.ask()).text for _ in range(30)} == {"b"}
    refused = await ask(alone)
    assert refused.status in (502, 503)
    await daemon.counts_some("marchproxy_drops_total", service="alone")
    await a.start()

    async def is_back():
        return (await ask(alone)).status == 200 and "a" in {(await client.ask()).text for _ in range(4)}

    await until(is_back, deadline_s=60, what="the backend is asked again")


async def test_a_daemon_that_stands_still_answers_when_it_goes_on(site):
    server = await site.web_server()
    web = site.service("web", server, http=True)
    daemon = await site.start(web)
    known = await WebClient.to(web)
    assert (await known.ask()).status == 200
    everybody = [daemon.pid, *daemon.workers]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    new = [await WebClient.to(web) for _ in range(50)]
    for client in (known, *new):
        await client.send()
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    assert {(await client.answer()).status for client in (known, *new)} == {200}
    assert sorted(everybody[1:]) == sorted(daemon.workers)
