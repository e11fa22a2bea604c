"""Clients that are many, slow or greedy cost a bounded amount of memory, and nobody else his service."""

from __future__ import annotations

import resource

import pytest
import trio
from system_rig.web_client import WebClient, ask
from system_rig.workshop import Workshop

from marchproxy_core.testing import until
from marchproxy_core.testing.pytest_plugin import leave_out
from marchproxy_core.testing.servers import receive_exactly

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = 2_000
IDLE = 10_000
GREAT = 4 << 30
MIB = 1 << 20
_AT_ONCE = 64


@pytest.fixture(autouse=True)
def _open_files():
    """Have enough descriptors for clients and backends, which are all in this process."""
    need = IDLE + 1_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < need:
        leave_out(f"needs {need} open files, has a hard limit of {hard}: ulimit -Hn {need}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def slow_client(service, statuses):
    """Send a byte of a head each second, until there is an answer."""
    client = await service.knock()

    async def dribble():
        for byte in GET[:-2] + b"X-More: " + b"x" * 1000:
            await client.stream.send_all(bytes((byte,)))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        answer = await client.stream.receive_some(100)
        nursery.cancel_scope.cancel()
    statuses.append(answer.split(b" ")[1])
    client.close()


async def test_two_thousand_slow_clients_hold_up_nobody_and_are_sent_away(site):
    web = site.service("web", await site.web_server(), http=True)
    daemon = await site.start(web, read_timeout=6)
    prompt, statuses = await WebClient.to(web), []
    async with trio.open_nursery() as nursery:
        for _ in range(SLOW):
            nursery.start_soon(slow_client, web, statuses)
        await daemon.counts("marchproxy_connections_opened_total", SLOW + 1, service="web")
        while len(statuses) < SLOW:
            assert (await prompt.ask()).status == 200
            assert (await ask(web)).status == 200
            await trio.sleep(0.02)  # so that there is a CPU for the slow ones
    assert set(statuses) == {b"408"}
    assert prompt.asked > 10
    await daemon.counts("marchproxy_drops_total", SLOW, service="web", reason="read_timeout")


async def test_ten_thousand_idle_connections_cost_no_more_than_their_heads(site, processes):
    web = site.service("web", await site.web_server(), http=True, access_log=0)
    daemon = await site.start(web, keep_alive_timeout=3600)
    assert {(await ask(web)).status for _ in range(100)} == {200}

    def used():
        return sum(map(processes.memory, daemon.workers))

    before, streams = used(), []
    places = trio.CapacityLimiter(_AT_ONCE)

    async def come():
        async with places:
            client = await web.knock()
            streams.append(client.stream)
            await answered(client.stream)

    async with trio.open_nursery() as nursery:
        for _ in range(IDLE):
            nursery.start_soon(come)
    await daemon.counts("marchproxy_connections_active", IDLE, service="web")
    # An object, its socket and its handler; a buffer of its own, 16 KiB or more, would be far above.
    assert (used() - before) / IDLE < 6 * 1024
    for stream in streams[:: IDLE // 200]:
        await answered(stream)
    assert {(await ask(web)).status for _ in range(20)} == {200}


async def answered(stream):
    await stream.send_all(GET)
    answer = b""
    while not answer.endswith(b"\r\n\r\na"):
        data = await stream.receive_some(1000)
        assert data
        answer += data


async def test_bodies_of_4_gib_go_through_64_mib_and_are_counted(site, processes):
    web = site.service("web", await site.web_server(), http=True)
    daemon = await site.start(web, request_timeout=3600)
    assert {(await ask(web)).status for _ in range(20)} == {200}
    before, most = sum(map(processes.memory, daemon.workers)), 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, sum(map(processes.memory, daemon.workers)))
            await trio.sleep(0.1)

    async def download():
        client = await web.knock()
        await client.stream.send_all(GET.replace(b"/ ", b"/zeros/%d " % GREAT))
        assert f"content-length: {GREAT}".encode() in await head_of(client.stream)
        place, count = bytearray(1 << 20), 0
        while count < GREAT:
            got = await client.stream.socket.recv_into(place)
            assert got
            count += got
        assert count == GREAT

    async def upload():
        client = await WebClient.to(web)
        await client.send("/size", method="POST", size=GREAT)
        await client.send_zeros(GREAT)
        assert (await client.answer()).text == str(GREAT)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        async with trio.open_nursery() as traffic:
            traffic.start_soon(download)
            traffic.start_soon(upload)
        nursery.cancel_scope.cancel()
    assert most - before < 64 * MIB
    await daemon.counts("marchproxy_bytes_transferred_total", GREAT, service="web", direction="in")
    # Beside it twenty answers of one byte, and the size in figures.
    await daemon.counts(
        "marchproxy_bytes_transferred_total", GREAT + 20 + len(str(GREAT)), service="web", direction="out"
    )


async def head_of(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await receive_exactly(stream, 1)
    return head


async def test_clients_that_do_not_read_do_not_fill_the_memory(site, processes):
    workshop, server = Workshop(site.directory), await site.web_server()
    web, safe = site.service("web", server, http=True), site.service("safe", server, **workshop.tls())
    daemon = await site.start(web, safe)
    clients = [await WebClient.to(web) for _ in range(20)]
    clients += [await WebClient.to(safe, workshop.client()) for _ in range(20)]
    before = sum(map(processes.memory, daemon.workers))
    for client in clients:
        await client.send(f"/zeros/{GREAT}")

    seen = -1.0

    async def stands_still():
        nonlocal seen
        await trio.sleep(1.2)  # workers' counters are read once a second
        last, seen = seen, await daemon.metric("marchproxy_bytes_transferred_total", direction="out")
        return seen > 0 and seen == last

    await until(stands_still, deadline_s=60, what="nothing moves any more")
    # At most 256 KiB wait for each, and a piece on its way of as much.
    assert sum(map(processes.memory, daemon.workers)) - before < 40 * MIB
    assert (await ask(safe, "/", workshop.client())).status == 200
