"""Open WebSockets outlive every reload that does not take their service away, and a removal tells them so."""

from __future__ import annotations

import pytest
import trio
from system_rig.http2_client import Http2Client
from system_rig.web_client import WebSocket, ask, web_socket
from system_rig.workshop import Workshop

from marchproxy_core.testing import until

_EACH = 80
_STREAMS = 10


async def reloaded(daemon):
    result = await daemon.run("reload")
    assert result.status == 0, result.errors


async def all_of(sockets, what):
    """Ask all of them the same at once; return the answers, each once."""
    answers = set()

    async def one(socket):
        answers.add(await getattr(socket, what)())

    async with trio.open_nursery() as nursery:
        for socket in sockets:
            nursery.start_soon(one, socket)
    return answers


async def opened(nursery, plain, secure, workshop):
    """Open 200: in HTTP/1.1, over TLS, and in streams of HTTP/2 of either."""
    sockets = []

    async def some(service, context):
        for _ in range(_EACH):
            sockets.append(await web_socket(service, context))  # noqa: PERF401 - others append meanwhile

    async def streams(service, context):
        client = await Http2Client.to(service, nursery, context)
        for _ in range(_STREAMS):
            sockets.append(await client.open_web_socket())  # noqa: PERF401

    async with trio.open_nursery() as opening:
        opening.start_soon(some, plain, None)
        opening.start_soon(some, secure, workshop.client())
        for _ in range(2):
            opening.start_soon(streams, plain, None)
            opening.start_soon(streams, secure, workshop.client("h2"))
    return sockets


@pytest.fixture
async def clients():
    """Where what belongs to clients runs."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def test_two_hundred_web_sockets_outlive_reloads_and_are_told_when_their_service_goes(site, clients):
    workshop = Workshop(site.directory)
    a, b, c = [await site.web_server(name) for name in "abc"]
    plain = site.service("plain", a, b, websocket=True)
    secure = site.service("secure", a, b, websocket=True, **workshop.tls())
    other = site.service("other", a, http=True)
    daemon = await site.start(plain, secure, other, drain_timeout=5)
    sockets = await opened(clients, plain, secure, workshop)
    assert len(sockets) == 200
    assert {one.server for one in sockets} == {"a", "b"}
    await daemon.counts("marchproxy_websockets_active", 200)

    other.options["request_header_set"] = ["X-Other: yes"]
    site.write(plain, secure, other)
    await reloaded(daemon)
    assert await all_of(sockets, "echoes") == {True}

    for service in (plain, secure):
        service.options |= {
            "max_requests": 5000,
            "client_request_rate": 10_000,
            "max_connections": 5000,
            "request_header_set": ["X-New: yes"],
            "response_header_set": ["X-New: yes"],
        }
        service.give(a, b, c)
    site.write(plain, secure, other)
    await reloaded(daemon)
    assert await all_of(sockets, "echoes") == {True}
    await new_ones_meet(plain, "c")

    await renewed(daemon, workshop, secure)
    assert await all_of(sockets, "echoes") == {True}

    for service in (plain, secure):
        service.give(b, c)
    site.write(plain, secure, other)
    await reloaded(daemon)
    # docs/operating.md: a backend that is taken out of the list keeps what it has; a flush ends it.
    assert await all_of(sockets, "echoes") == {True}

    flushed = [a.backend() | {"flush": True}, b.backend(), c.backend()]
    for service in (plain, secure):
        service.options["backends"] = flushed
    site.write(plain, secure, other)
    await reloaded(daemon)
    of_a = [one for one in sockets if one.server == "a"]
    of_b = [one for one in sockets if one.server == "b"]
    assert await all_of(of_a, "fate") <= {"reset", "ended"}
    assert await all_of(of_b, "echoes") == {True}

    site.write(other)
    await reloaded(daemon)
    assert await all_of(of_b, "fate") == {1001}
    assert (await ask(other)).status == 200
    await daemon.told("drain.finished", services=["plain", "secure"])


async def new_ones_meet(service, name):
    async def met():
        one = await web_socket(service)
        assert isinstance(one, WebSocket)
        await trio.aclose_forcefully(one.stream)
        return one.server == name

    await until(met, deadline_s=30, what=f"new ones come to {name}")


async def renewed(daemon, workshop, secure):
    """Replace the certificate on disk, and wait until new clients are shown it."""
    before = {event["fingerprint"] for event in daemon.events("certificate.loaded")}
    workshop.tls()

    def is_loaded():
        return {event["fingerprint"] for event in daemon.events("certificate.loaded")} > before

    await until(is_loaded, deadline_s=30, what="the new certificate is loaded")
    one = await web_socket(secure, workshop.client())
    assert await one.echoes()
    await trio.aclose_forcefully(one.stream)
