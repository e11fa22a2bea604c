"""Requests find their service by host and path, and are changed on their way as the service says."""

from __future__ import annotations

import base64
from contextlib import AsyncExitStack

import attrs
import pytest

from marchproxy_core.services import HeaderRules, Http
from marchproxy_core.testing import until
from plugins.application.tests.http_rig import OK, answering


def get(host=b"a.test", path=b"/", *lines):
    return b"GET %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (path, host, b"".join(b"%b\r\n" % one for one in lines))


def named(name):
    return answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))


async def test_services_of_one_address_are_told_apart_by_host_and_path(serving, origin, log_events):
    places = {
        "host": Http(hosts=("a.test",)),
        "wild": Http(hosts=("*.a.test",)),
        "path": Http(hosts=("a.test",), paths=("/api",)),
    }
    async with AsyncExitStack() as stack:
        origins = {
            name: await stack.enter_async_context(origin(named(name.encode()))) for name in (*places, "first")
        }
        site = await stack.enter_async_context(serving(origins["first"], http=Http(hosts=("b.test",))))
        for name, http in places.items():
            site.running.put(
                attrs.evolve(site.service, name=name, http=http, backends=(origins[name].backend,))
            )
        first = await site.client()
        assert (await first.ask(get(b"b.test"))).body == b"first"

        async def routed():
            one = await site.client()
            return (await one.ask(get(b"a.test", b"/api"))).body == b"path"

        await until(routed)
        client = await site.client()
        met = [
            (await client.ask(get(host, path))).body
            for host, path in [
                (b"a.test", b"/"),
                (b"A.test", b"/apis"),
                (b"a.test", b"/api"),
                (b"a.test", b"/api/x"),
                (b"a.test", b"/x/../api"),
                (b"x.a.test", b"/api"),
                (b"b.test", b"/api"),
            ]
        ]
        assert met == [b"host", b"host", b"path", b"path", b"path", b"wild", b"first"]
        answer = await client.ask(get(b"c.test"))
        assert answer.status == 404
    assert "no_route" in [event["reason"] for event in log_events("request.refused")]


async def test_the_path_is_stripped_and_the_host_replaced(serving, origin):
    http = Http(paths=("/api",), strip_path=True, host_header="inner.test")
    async with origin() as a, serving(a, http=http) as site:
        client = await site.client()
        for path in (b"/api", b"/api/x?q=1"):
            assert (await client.ask(get(b"a.test", path))).status == 200
        assert a.paths == [b"/", b"/x?q=1"]
        assert {one[b"host"] for one in a.requests} == {b"inner.test"}
        assert {one[b"x-forwarded-host"] for one in a.requests} == {b"a.test"}


async def test_rules_change_fields_both_ways(serving, origin):
    rules = HeaderRules(set=(("X-Set", "new"),), add=(("X-Add", "more"),), remove=("X-Gone",))
    said = b"HTTP/1.1 200 OK\r\nX-Set: old\r\nX-Gone: 1\r\nContent-Length: 2\r\n\r\nok"
    http = Http(request_headers=rules, response_headers=rules)
    async with origin(answering(said)) as a, serving(a, http=http) as site:
        client = await site.client()
        answer = await client.ask(get(b"a.test", b"/", b"X-Set: old", b"X-Gone: 1"))
        for message in (answer, a.requests[0]):
            assert (message[b"x-set"], message[b"x-add"], message[b"x-gone"]) == (b"new", b"more", None)


async def test_a_backend_is_told_who_asks_and_not_by_the_client(serving, origin):
    async with origin() as a, serving(a) as site:
        client = await site.client()
        answer = await client.ask(
            get(
                b"a.test", b"/", b"X-Forwarded-For: 1.2.3.4", b"Forwarded: for=1.2.3.4", b"X-Request-Id: mine"
            )
        )
        (request,) = a.requests
        assert request[b"x-forwarded-for"] == b"127.0.0.1"
        assert request[b"x-forwarded-proto"] == b"http"
        assert request[b"forwarded"] == b'for=127.0.0.1;proto=http;host="a.test"'
        assert request[b"via"] == b"1.1 marchproxy"
        ids = [value for name, value in request.fields if name == b"x-request-id"]
        assert answer[b"x-request-id"] in ids


async def test_a_websocket_is_a_tunnel_with_frames_both_ways(serving, origin):
    key = base64.b64encode(bytes(16))
    hello, answer = b"\x81\x85\x00\x00\x00\x00hello", b"\x81\x05world"

    async def serve(peer, requests):
        requests.append(await peer.request())
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while await peer.exactly(len(hello)):
            await peer.send(answer)

    upgrade = (b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    async with origin(serve) as a, serving(a, websocket=True) as site:
        client = await site.client()
        switched = await client.ask(get(b"a.test", b"/", *upgrade, b"Sec-WebSocket-Key: " + key))
        assert (switched.status, switched[b"upgrade"]) == (101, b"websocket")
        assert a.requests[0][b"sec-websocket-key"] == key
        await site.counts("websockets_active", 1)
        for _ in range(3):
            await client.send(hello)
            assert await client.exactly(len(answer)) == answer
        await client.stream.aclose()
        await site.counts("websockets_active", 0)
        await site.counts("connections_active", 0)


async def test_no_upgrade_where_the_service_has_none(serving, origin):
    async with origin() as a, serving(a) as site:
        client = await site.client()
        upgraded = await client.ask(get(b"a.test", b"/", b"Connection: upgrade", b"Upgrade: websocket"))
        assert upgraded.status == 200
        assert a.requests[0][b"upgrade"] is None


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_while_it_drains_answers_are_whole_and_say_close(serving, origin, is_chunked):
    asked, go_on = [], []

    async def serve(peer, requests):
        requests.append(await peer.request())
        asked.append(True)
        await until(lambda: bool(go_on))
        await peer.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" if is_chunked else OK
        )

    async with origin(serve) as a, serving(a) as site:
        busy, idle = await site.client(), await site.client()
        await busy.send(get())
        await until(lambda: bool(asked))
        await site.counts("connections_active", 2)
        site.running.drain(site.service)
        assert await idle.is_ended()
        go_on.append(True)
        answer = await busy.answer()
        assert (answer.body, answer[b"connection"]) == (b"ok", b"close")
        assert await busy.is_ended()
        await site.counts("connections_active", 0)
