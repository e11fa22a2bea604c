"""What strangers send and how rudely they leave costs the daemon nothing: no fault, no leak, nobody else's service."""

from __future__ import annotations

import random
import socket
import struct

import trio

from marchproxy_core.testing import until

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
SEED = 20
AT_ONCE = 16
MOST_SPARE_PIPES = 2 * 8
"""Descriptors that a worker may keep for later."""


async def be_rude(service, dice):
    """Come, do something no client should, and go; what becomes of it is of no interest."""
    size = dice.choice([0, 1, 100, 5_000, 200_000])
    try:
        client = await service.knock()
    except ConnectionResetError:
        return
    try:
        with trio.move_on_after(5):
            async with trio.open_nursery() as nursery:
                if dice.random() < 0.5:  # else it never reads
                    nursery.start_soon(read_on, client.stream)
                await client.stream.send_all(dice.randbytes(size))
                if dice.random() < 0.3:
                    await client.stream.send_eof()
                if dice.random() < 0.3:
                    await client.stream.receive_some(10)
                nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.BusyResourceError):
        pass
    if dice.random() < 0.5:
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.stream.socket.close()


async def read_on(stream):
    async for _ in stream:
        pass


async def be_rude_by_datagrams(service, dice):
    """Send some of any size, and be gone when they are answered."""
    client = await service.talk()
    for _ in range(dice.randrange(4)):
        await client.sock.send(dice.randbytes(dice.choice([0, 1, 500, 9000, 65507])))
    client.close()


async def be_rude_to_admin(admin, dice):
    """Send the admin API what is no HTTP, or half of it."""
    host, _, port = admin.rpartition(":")
    begin = dice.choice(
        [b"", b"GET /metrics HTTP/1.1\r\n", b"POST /admin/reload HTTP/1.1\r\nHost: localhost\r\n"]
    )
    end = dice.choice(
        [b"", b"\r\n\r\n", b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nzz"]
    )
    stream = await trio.open_tcp_stream(host, int(port))
    try:
        await stream.send_all(begin + dice.randbytes(dice.choice([0, 10, 1000])) + end)
        if dice.random() < 0.5:
            with trio.move_on_after(0.05):
                await stream.receive_some()
    except trio.BrokenResourceError:
        pass
    stream.socket.close()


async def many(count, rude, target, dice):
    """Have so many strangers come, a few at a time."""
    places = trio.CapacityLimiter(AT_ONCE)

    async def one():
        async with places:
            await rude(target, dice)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


async def test_a_daemon_beset_by_rude_strangers_stays_whole(site, processes):
    dice = random.Random(SEED)
    web, refusing = site.service("web", await site.server("a")), site.service("refusing")
    refusing.options["backends"] = [site.nobody()]
    greedy = site.service("greedy", await site.server("b"), max_connections=4)
    dns = site.service("dns", await site.datagram_server("d"), protocol="udp")
    lost = site.service("lost", protocol="udp", backends=[site.nobody()])
    admin = f"127.0.0.1:{site.service('admin').port}"
    daemon = await site.start(web, refusing, greedy, dns, lost, admin_listen=admin, idle_timeout=4)

    def sockets():
        return {(pid, one) for pid in (daemon.pid, *daemon.workers) for one in processes.sockets(pid)}

    bystander = await web.call()
    assert await bystander.end() == "ended"
    await daemon.counts("marchproxy_connections_opened_total", 1)
    await daemon.counts("marchproxy_connections_active", 0)
    before = sockets()
    bystander = await web.call()
    async with trio.open_nursery() as nursery:
        for service in (web, refusing, greedy):
            nursery.start_soon(many, 150, be_rude, service, dice)
        for service in (dns, lost):
            nursery.start_soon(many, 150, be_rude_by_datagrams, service, dice)
        nursery.start_soon(many, 150, be_rude_to_admin, daemon.admin, dice)
        for _ in range(50):
            assert await bystander.echoes()
    assert await bystander.end() == "ended"

    # Looked at in /proc alone: Hypercorn keeps each connection to the admin API for 5 s after its client has gone.
    await until(
        lambda: not sockets() - before,
        deadline_s=20,
        what="no socket is left",
    )
    await daemon.counts("marchproxy_connections_active", 0)
    await daemon.counts("marchproxy_backend_connections_active", 0)
    for pid in daemon.workers:
        assert processes.pipes(pid) <= MOST_SPARE_PIPES
    assert [await web.visit() for _ in range(20)] == ["a"] * 20
    assert await daemon.answers("/readyz")
    assert await daemon.metric("marchproxy_connections_opened_total", service="web") >= 150
    assert not daemon.events("worker.died")
    assert not daemon.events("tier.demoted")
