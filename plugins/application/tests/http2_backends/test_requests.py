"""What a backend of HTTP/2 is asked, and what clients of both versions get of its answers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import hypercorn.config
import hypercorn.trio
import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Cache, Protocol
from marchproxy_core.testing import open_loopback_wire
from plugins.application.tests.http2_backends.rig import client_of, http2
from plugins.application.tests.http_rig import GET

POST = b"POST /here?q=1 HTTP/1.1\r\nHost: a.test\r\n"


async def test_a_request_of_http_1_1_becomes_one_of_http_2(serving, http2_origin):
    request = POST + (
        b"Content-Length: 5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Mine: Yes\r\n"
        b"TE: trailers\r\nCookie: a=1; b=2\r\nX-Forwarded-For: 1.2.3.4\r\n\r\nhello"
    )
    async with http2_origin() as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        answer = await client.ask(request)
        assert (answer.status, answer.body) == (200, b"hello")
        assert answer[b"via"] == b"2.0 marchproxy"
        assert answer[b"content-length"] == b"5"
        (asked,) = origin.requests
    pseudo = asked.fields[:4]
    assert dict(pseudo) == {
        b":method": b"POST",
        b":scheme": b"http",
        b":authority": b"a.test",
        b":path": b"/here?q=1",
    }
    assert (asked.get(b"x-mine"), asked.get(b"te"), asked.get(b"cookie")) == (
        b"Yes",
        b"trailers",
        b"a=1; b=2",
    )
    assert asked.get(b"x-forwarded-for") == b"127.0.0.1"
    assert asked.get(b"x-request-id") == answer[b"x-request-id"]
    assert asked.get(b"via") == b"1.1 marchproxy"
    names = [name for name, _ in asked.fields]
    for gone in (b"host", b"connection", b"keep-alive", b"x-hop", b"transfer-encoding"):
        assert gone not in names


async def test_no_te_for_who_sent_none(serving, http2_origin):
    async with http2_origin() as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip\r\n\r\n")).status == 200
        assert origin.requests[0].get(b"te") is None


async def test_chunks_and_trailers_of_a_request(serving, http2_origin):
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"
    async with http2_origin() as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        assert (await client.ask(request)).body == b"abcde"
        (asked,) = origin.requests
        assert asked.body == b"abcde"
        assert asked.trailers == [(b"x-sum", b"5")]
        assert asked.get(b"content-length") is None


async def trailing(asked):
    await asked.head((b"x-kind", b"stream"))
    await asked.send(b"one")
    await asked.send(b"two")
    await asked.trail((b"grpc-status", b"0"), (b"x-sum", b"6"))


async def test_trailers_of_an_answer_reach_a_client_of_http_1_1_behind_the_chunks(serving, http2_origin):
    async with http2_origin(trailing) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        for _ in range(2):
            answer = await client.ask()
            assert (answer.body, answer.trailers) == (b"onetwo", [(b"grpc-status", b"0"), (b"x-sum", b"6")])


async def test_trailers_of_an_answer_reach_a_client_of_http_2_as_trailers(serving, http2_origin):
    async with (
        http2_origin(trailing) as origin,
        serving(origin.backend, http=http2()) as site,
        client_of(site) as client,
    ):
        answer = await client.get((b"te", b"trailers"))
        assert (answer.body, answer.trailers) == (b"onetwo", [(b"grpc-status", b"0"), (b"x-sum", b"6")])
        assert origin.requests[0].get(b"te") == b"trailers"


async def test_a_head_alone_is_a_whole_answer(serving, http2_origin):
    async def answer(asked):
        await asked.head((b"grpc-status", b"12"), ends=True)

    async with http2_origin(answer) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        for _ in range(2):
            got = await client.ask()
            assert (got.status, got.body, got[b"grpc-status"]) == (200, b"", b"12")
        async with client_of(site) as other:
            got = await other.get()
            assert (got.status, got.is_over, got.trailers) == (200, True, [])
            assert got.get(b"content-length") is None


async def test_an_old_client_gets_an_answer_to_the_end_of_the_connection(serving, http2_origin):
    async with http2_origin(trailing) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        answer = await client.ask(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        assert (answer.body, answer[b"connection"]) == (b"onetwo", b"close")


@pytest.mark.parametrize("status", [b"204", b"304"])
async def test_an_answer_without_a_body(serving, http2_origin, status):
    async def answer(asked):
        await asked.head((b"etag", b'"x"'), status=status, ends=True)

    async with http2_origin(answer) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        for _ in range(2):
            assert (await client.ask()).status == int(status)


async def test_head_has_the_length_and_no_body(serving, http2_origin):
    async def answer(asked):
        await asked.head((b"content-length", b"1000"), ends=True)

    async with http2_origin(answer) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        for _ in range(2):
            got = await client.ask(GET.replace(b"GET", b"HEAD"))
            assert (got.status, got[b"content-length"], got.body) == (200, b"1000", b"")


async def test_interim_answers_pass(serving, http2_origin):
    async def answer(asked):
        asked.connection.h2.send_headers(asked.number, [(b":status", b"103"), (b"link", b"</s.css>")])
        await asked.head(ends=True)

    async with http2_origin(answer) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        early = await client.ask()
        assert (early.status, early[b"link"]) == (103, b"</s.css>")
        assert (await client.answer()).status == 200


async def test_what_a_service_wants_done_to_fields(serving, http2_origin):
    http = http2(host_header="inside.test")
    async with http2_origin() as origin, serving(origin.backend, http=http) as site:
        client = await site.client()
        await client.ask()
        assert origin.requests[0].get(b":authority") == b"inside.test"


async def test_a_large_head_goes_in_several_frames(serving, http2_origin):
    value = b"v" * 25000
    async with http2_origin() as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: %b\r\n\r\n" % value)
        assert answer.status == 200
        assert origin.requests[0].get(b"x-long") == value


async def test_requests_side_by_side_share_a_connection_and_overtake_each_other(serving, http2_origin):
    release = trio.Event()

    async def answer(asked):
        if asked.path == b"/slow":
            await release.wait()
        await asked.head()
        await asked.send(asked.path, ends=True)

    async with http2_origin(answer) as origin, serving(origin.backend, http=http2()) as site:
        first, second = await site.client(), await site.client()
        await first.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await second.ask(b"GET /fast HTTP/1.1\r\nHost: a\r\n\r\n")).body == b"/fast"
        release.set()
        assert (await first.answer()).body == b"/slow"
        assert len(origin.connections) == 1
        await site.counts("reused", 1)


async def test_a_cached_answer_comes_without_the_backend(serving, http2_origin):
    async def answer(asked):
        await asked.head((b"cache-control", b"max-age=60"))
        await asked.send(b"kept", ends=True)

    async with (
        http2_origin(answer) as origin,
        serving(origin.backend, http=http2(), cache=Cache(ttl_s=60.0)) as site,
    ):
        client = await site.client()
        for _ in range(3):
            assert (await client.ask()).body == b"kept"
        assert len(origin.requests) == 1


async def test_an_upgrade_is_refused(serving, http2_origin):
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with http2_origin() as origin, serving(origin.backend, http=http2(), websocket=True) as site:
        client = await site.client()
        assert (await client.ask(request)).status == 426
        assert not origin.requests


async def test_no_connection_is_kept_where_settings_say_so(serving, http2_origin):
    settings = Settings(worker_threads=1, backend_keep_alive=False)
    async with http2_origin() as origin, serving(origin.backend, http=http2(), settings=settings) as site:
        client = await site.client()
        for _ in range(3):
            assert (await client.ask()).status == 200
        assert len(origin.connections) == 3


@asynccontextmanager
async def hypercorn_running(wire):
    endpoint = wire.free_port(Protocol.TCP, 4)
    config = hypercorn.config.Config()
    config.bind = [str(endpoint)]
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(hypercorn.trio.serve, _app, config))
        try:
            yield Backend(endpoint=endpoint)
        finally:
            nursery.cancel_scope.cancel()


async def _app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%b over %b" % (body, scope["http_version"].encode())})


async def test_hypercorn_behind_the_proxy(serving):
    async with (
        open_loopback_wire() as wire,
        hypercorn_running(wire) as backend,
        serving(backend, http=http2()) as site,
    ):
        client = await site.client()
        request = POST + b"Content-Length: 5\r\n\r\nhello"
        for _ in range(3):
            assert (await client.ask(request)).body == b"hello over 2"


async def test_a_request_that_comes_before_the_end_of_the_answer_is_answered(serving, http2_origin):
    end = trio.Event()

    async def answer(asked):
        await asked.head((b"content-length", b"2"))
        await asked.send(b"ok")
        if asked.path == b"/first":
            await end.wait()
        asked.connection.h2.end_stream(asked.number)
        await asked.connection.flush()

    async with http2_origin(answer) as origin, serving(origin.backend, http=http2()) as site:
        client, other = await site.client(), await site.client()
        assert (await client.ask(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")).body == b"ok"
        await client.send(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
        # The worker takes events in turn: when it has answered this one, it has seen the one before.
        assert (await other.ask()).body == b"ok"
        end.set()
        assert (await client.answer()).body == b"ok"
