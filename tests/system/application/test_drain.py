"""Going away as HTTP has it: what is being served is served whole, and every client hears that it was the last time."""

from __future__ import annotations

import os
import signal

import pytest
import trio
from system_rig.http2_client import Http2Client
from system_rig.web_client import WebClient
from system_rig.workshop import Workshop

from marchproxy_core.testing import until


@pytest.fixture
async def clients():
    """Where what belongs to clients runs."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def test_requests_are_answered_and_clients_hear_that_it_was_the_last_time(site, clients):
    workshop = Workshop(site.directory)
    server = await site.web_server()
    web = site.service("web", server, http=True)
    safe = site.service("safe", server, **workshop.tls())
    daemon = await site.start(web, safe)
    one, secret = await WebClient.to(web), await WebClient.to(safe, workshop.client())
    idle = await WebClient.to(web)
    assert (await idle.ask()).status == 200
    for client in (one, secret):
        await client.send("/wait")
    many = [await Http2Client.to(web, clients), await Http2Client.to(safe, clients, workshop.client("h2"))]
    streams = [await client.ask("/wait") for client in many for _ in range(3)]
    await until(lambda: server.paths.count("/wait") == 8, deadline_s=30, what="all are being served")
    daemon.signal(signal.SIGTERM)
    await daemon.told("drain.started")
    # First the one that stops nobody, then the one that names the last stream (RFC 9113, section 6.8).
    await until(lambda: all(len(client.goaways) == 2 for client in many), deadline_s=30, what="GOAWAY twice")
    assert [client.goaways for client in many] == [[2**31 - 1, 5]] * 2
    assert await idle.stream.receive_some(1) == b""
    assert daemon.process.poll() is None
    server.lets_go.set()
    for client in (one, secret):
        answer = await client.answer()
        assert (answer.status, answer.fields["connection"], answer.text) == (200, "close", "a")
    await until(lambda: all(client.is_ended for client in many), deadline_s=30, what="they are closed")
    assert [(stream.fields[":status"], bytes(stream.body), stream.is_over) for stream in streams] == [
        ("200", b"a", True)
    ] * 6
    assert await daemon.exit_status() == 0
    assert not daemon.events("drain.cut_off")


async def test_clients_in_the_accept_queue_when_a_drain_begins_are_answered(site):
    workshop = Workshop(site.directory)
    server = await site.web_server()
    web = site.service("web", server, http=True)
    safe = site.service("safe", server, **workshop.tls())
    daemon = await site.start(web, safe)
    workers = daemon.workers
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    waiting = [await WebClient.to(web) for _ in range(40)]
    for client in waiting[:20]:
        await client.send()
    by_tls = []

    async def ask_by_tls():
        client = await WebClient.to(safe, workshop.client())
        by_tls.append((await client.ask()).status)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask_by_tls)
        await until(lambda: len(safe.clients) == 10, what="all have come")
        daemon.signal(signal.SIGTERM)
        await daemon.told("drain.started")
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        for client in waiting[20:]:
            await client.send()
        answers = [await client.answer() for client in waiting]
    assert {(one.status, one.fields["connection"]) for one in answers} == {(200, "close")}
    assert by_tls == [200] * 10
    assert await daemon.exit_status() == 0
