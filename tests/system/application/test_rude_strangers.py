"""What is no HTTP, no TLS, or half of either costs nobody else anything, and counters say what it was."""

from __future__ import annotations

import contextlib
import random
import socket
import struct

import trio
from system_rig.web_client import ENDED, WebClient, ask, connect
from system_rig.workshop import Workshop

from marchproxy_core.testing import until
from marchproxy_core.testing.servers import receive_all

SEED = 22
ROUNDS = 12
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
HELLO = bytes.fromhex("1603010200010001fc0303")  # the beginning of a ClientHello
PHASES = {
    "nothing": b"",
    "half a head": GET[:-5],
    "a head": GET,
    "two requests": GET + GET,
    "half a body": b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nhalf",
    "half a chunk": b"POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
    "a long answer": GET.replace(b"/ ", b"/zeros/30000000 "),
    "half an answer": GET.replace(b"/ ", b"/half/length/reset "),
    "an upgrade": GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "a preface": PREFACE,
    "a stream": PREFACE + b"\0\0\x04\x01\x05\0\0\0\x01\x82\x84\x86\x41",
    "frames that are none": PREFACE + bytes(range(256)),
}
"""What a client sends before it is gone."""


async def said(service, data):
    """Send this on a connection of its own; return all that comes back."""
    client = await service.knock()
    await client.stream.send_all(data)
    try:
        with trio.fail_after(30):
            return await receive_all(client.stream)
    except trio.BrokenResourceError:
        return b"reset"


async def leave(raw, how):
    """End a connection in one of the ways that clients have."""
    if how == "half-open":
        with contextlib.suppress(OSError, *ENDED), trio.move_on_after(0.3):
            raw.socket.shutdown(socket.SHUT_WR)
            await raw.receive_some(100)
    elif how == "reset":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    raw.socket.close()


async def in_every_phase(service, context):
    """Have clients go in each phase and way, over TLS where there is a context."""
    async with trio.open_nursery() as nursery:
        for data in PHASES.values():
            for how in ("close", "half-open", "reset"):
                nursery.start_soon(in_this_phase, service, context, data, how)


async def in_this_phase(service, context, data, how):
    stream = await connect(service, context)
    try:
        await stream.send_all(data)
        with trio.move_on_after(0.2):
            await stream.receive_some(10)
    except (*ENDED, trio.BusyResourceError):
        pass
    await leave(stream if context is None else stream.transport_stream, how)


async def within_the_handshake(service, how):
    client = await service.knock()
    await client.stream.send_all(HELLO)
    await leave(client.stream, how)


async def test_strangers_are_told_and_counted_for_what_they_are(site, processes):
    workshop, dice = Workshop(site.directory), random.Random(SEED)
    server = await site.web_server()
    server.lets_go.set()
    web = site.service("web", server, websocket=True)
    safe = site.service("safe", server, websocket=True, **workshop.tls())
    daemon = await site.start(web, safe, read_timeout=2, backend_keep_alive=False)
    context, bystander = workshop.client(), await WebClient.to(web)
    workers = daemon.workers

    def sockets():
        return {(pid, one) for pid in workers for one in processes.sockets(pid)}

    assert (await bystander.ask()).status == 200
    before = sockets()
    for _ in range(ROUNDS):
        answer = await said(web, bytes([dice.randrange(128, 256)]) + dice.randbytes(300) + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert (await said(web, HELLO + b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert b"400" in (await said(safe, GET)).split(b"\r\n")[0]
        await said(safe, dice.randbytes(300))
        await trio.lowlevel.checkpoint()
    await daemon.counts("marchproxy_drops_total", 2 * ROUNDS, service="web")
    # By chance some of it is another fault: a target, a line's end.
    await daemon.counts_some("marchproxy_drops_total", service="web", reason="bad_request_line")
    await daemon.counts("marchproxy_drops_total", 2 * ROUNDS, service="safe", reason="tls_failed")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_every_phase, web, None)
        nursery.start_soon(in_every_phase, safe, context)
        for how in ("close", "half-open", "reset"):
            nursery.start_soon(within_the_handshake, safe, how)
        for _ in range(50):
            assert (await bystander.ask()).status == 200
            assert (await ask(safe, "/", context)).status == 200
    await bystander.close()

    async def is_over():
        active = await daemon.metric("marchproxy_connections_active")
        return active == 0 and not await daemon.metric("marchproxy_requests_active")

    await until(is_over, deadline_s=30, what="no connection and no request is left")
    await until(lambda: not sockets() - before, deadline_s=20, what="no socket is left")
    for service in (web, safe):
        await daemon.counts_some("marchproxy_drops_total", service=service.name, reason="client_gone")
    assert daemon.workers == workers
    assert await daemon.answers("/readyz")
    assert not daemon.events("worker.died")
