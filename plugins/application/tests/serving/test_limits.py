"""What a service holds its clients to: each with its status, its reason in the counters, and its line in the log."""

from __future__ import annotations

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Http
from marchproxy_core.testing import until
from plugins.application.tests.http_rig import GET, OK, answering

MALFORMED = [
    (b"GET /\r\n\r\n", 400, "bad_request_line"),
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_target"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "bad_version"),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad_line_end"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400, "folded_field"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400, "bad_field_name"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400, "bad_field_value"),
    (b"GET / HTTP/1.1\r\n\r\n", 400, "no_host"),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "bad_host"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "bad_length"),
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "length_and_coding",
    ),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "unknown_coding"),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501, "method_not_implemented"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", 417, "unknown_expectation"),
]


@pytest.mark.parametrize(("request_", "status", "reason"), MALFORMED, ids=[one[2] for one in MALFORMED])
async def test_what_is_malformed_is_refused_by_name(serving, origin, log_events, request_, status, reason):
    async with origin() as a, serving(a) as site:
        client = await site.client()
        await client.send(request_ + GET)
        answer = await client.answer()
        assert (answer.status, answer[b"connection"]) == (status, b"close")
        assert await client.is_ended()  # what follows is not read: nobody knows where it begins
        assert a.requests == []
        await site.counts(f"drops.{reason}", 1)
        await site.counts(f"answers.{status // 100}xx", 1)
    (event,) = log_events("request.refused")
    assert (event["status"], event["reason"], event["client"]) == (status, reason, "127.0.0.1")
    assert event["id"].encode() == answer[b"x-request-id"]


async def test_a_chunk_that_is_none_ends_the_request(serving, origin, log_events):
    async with origin() as a, serving(a) as site:
        client = await site.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n")
        assert (await client.answer()).status == 400
        assert await client.is_ended()
        assert a.requests == []
        await site.counts("drops.bad_chunk", 1)
    (event,) = log_events("request.answered")
    assert (event["status"], event["reason"], event["origin"]) == (400, "bad_chunk", "proxy")


@pytest.mark.parametrize(
    "fields", [b"X: %b\r\n" % (b"x" * 3000), b"X: 1\r\n" * 20], ids=["too long", "too many"]
)
@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_head_that_is_too_large_is_431(serving, origin, fields, is_whole):
    http = Http(max_header_bytes=1024, max_headers=10)
    if not is_whole and len(fields) < 1024:
        fields *= 10
    async with origin() as a, serving(a, http=http) as site:
        client = await site.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + (b"\r\n" if is_whole else b""))
        assert (await client.answer()).status == 431
        assert await client.is_ended()
        await site.counts("drops.head_too_large", 1)


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_body_that_is_too_large_is_413(serving, origin, is_chunked):
    http = Http(max_body_bytes=10)
    framing, body = b"Content-Length: 11", b"x" * 11
    if is_chunked:
        framing, body = b"Transfer-Encoding: chunked", b"b\r\n%b\r\n0\r\n\r\n" % body
    async with origin() as a, serving(a, http=http) as site:
        client = await site.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (framing, body))
        answer = await client.answer()
        assert (answer.status, answer[b"connection"]) == (413, b"close")
        assert a.requests == []
        await site.counts("drops.body_too_large", 1)
        client = await site.client()
        allowed = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + b"x" * 10
        assert (await client.ask(allowed)).status == 200


async def test_more_requests_than_the_service_may_have_are_429(serving, origin, log_events):
    async with origin() as a, serving(a, http=Http(request_rate=0.001)) as site:
        client = await site.client()
        answers = [(await client.ask()).status for _ in range(3)]
        assert answers == [200, 429, 429]
        assert len(a.requests) == 1
        await site.counts("drops.request_rate", 2)
    assert [one.get("reason") for one in log_events("request.answered")] == [None, *["request_rate"] * 2]


async def test_a_client_has_a_rate_of_its_own_by_what_names_it(serving, origin):
    http = Http(client_request_rate=0.001, client_key="header:x-key")
    async with origin() as a, serving(a, http=http) as site:
        client = await site.client()

        async def ask(key):
            return (await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Key: %b\r\n\r\n" % key)).status

        assert [await ask(key) for key in (b"a", b"b", b"a", b"b", b"c")] == [200, 200, 429, 429, 200]
        await site.counts("drops.client_request_rate", 2)


async def test_more_requests_at_once_than_allowed_are_503(serving, origin):
    go_on = trio.Event()

    async def serve(peer, requests):
        requests.append(await peer.request())
        await go_on.wait()
        await peer.send(OK)

    async with origin(serve) as a, serving(a, http=Http(max_requests=1)) as site:
        first, second = await site.client(), await site.client()
        await first.send(GET)
        await until(lambda: len(a.requests) == 1)
        assert (await second.ask()).status == 503
        await site.counts("drops.max_requests", 1)
        go_on.set()
        assert (await first.answer()).status == 200


async def test_more_than_may_wait_for_a_connection_are_refused(serving, origin):
    go_on = trio.Event()

    async def serve(peer, requests):
        while peer.buffer or await peer.more():
            requests.append(await peer.request())
            await go_on.wait()
            await peer.send(OK)

    http = Http(max_backend_connections=1, max_waiting=1)
    async with origin(serve) as a, serving(a, http=http) as site:
        clients = [await site.client() for _ in range(3)]
        for client in clients:
            await client.send(GET)
        await site.counts("drops.pool_exhausted", 1)
        go_on.set()
        assert sorted([(await client.answer()).status for client in clients]) == [200, 200, 503]
        assert a.connections == 1


@pytest.mark.parametrize("begun", [b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
async def test_a_head_that_does_not_end_in_time_is_408(serving, origin, log_events, begun):
    settings = Settings(worker_threads=1, read_timeout=0.3)
    async with origin() as a, serving(a, settings=settings) as site:
        client = await site.client()
        await client.send(begun)
        answer = await client.answer()
        assert (answer.status, answer[b"connection"]) == (408, b"close")
        assert await client.is_ended()
        await site.counts("drops.read_timeout", 1)
        await site.counts("connections_active", 0)
    (event,) = log_events("request.refused")
    assert (event["status"], event["reason"]) == (408, "read_timeout")


async def test_a_body_that_does_not_end_in_time_is_408(serving, origin):
    settings = Settings(worker_threads=1, read_timeout=0.3)
    async with origin() as a, serving(a, settings=settings) as site:
        client = await site.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        assert (await client.answer()).status == 408
        await site.counts("drops.read_timeout", 1)


async def test_a_client_that_is_slower_than_it_may_be_is_408(serving, origin):
    """It goes on sending, so no wait of its own is ever too long."""
    async with origin() as a, serving(a, http=Http(min_client_rate=1000)) as site:
        client = await site.client()
        async with trio.open_nursery() as nursery:

            async def trickle():
                await client.send(b"GET / HTTP/1.1\r\nX: ")
                while True:
                    await client.send(b"x")
                    await trio.sleep(0.2)

            nursery.start_soon(trickle)
            assert (await client.answer()).status == 408
            nursery.cancel_scope.cancel()
        await site.counts("drops.client_too_slow", 1)
        assert a.requests == []


async def test_a_client_that_takes_nothing_is_cut(serving, origin):
    settings = Settings(worker_threads=1, write_timeout=0.5)
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20)
    async with origin(answering(large + bytes(64 << 20))) as a, serving(a, settings=settings) as site:
        client = await site.client()
        await client.send(GET)
        await site.counts("drops.write_timeout", 1)
        await site.counts("connections_active", 0)
