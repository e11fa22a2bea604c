"""Connections are kept on both sides, requests on one are answered in order, and old clients get what they know."""

from __future__ import annotations

import pytest

from marchproxy_core.config import Settings
from plugins.application.tests.http_rig import GET, OK, answering


def request(path=b"/", *lines, version=b"1.1"):
    return b"".join(
        [
            b"GET %b HTTP/%b\r\nHost: a.test\r\n" % (path, version),
            *(b"%b\r\n" % one for one in lines),
            b"\r\n",
        ]
    )


def echo_path(request):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.path), request.path)


async def test_both_sides_keep_their_connection(serving, origin):
    async with origin() as a, serving(a) as site:
        client = await site.client()
        for _ in range(3):
            answer = await client.ask()
            assert (answer.status, answer.body) == (200, b"ok")
            assert answer[b"connection"] is None
        assert a.connections == 1
        await site.counts("reused", 2)
        await site.counts("connections_opened", 1)


async def test_what_is_pipelined_is_answered_in_order(serving, origin):
    paths = [b"/%d" % number for number in range(50)]
    async with origin(answering(echo_path)) as a, serving(a) as site:
        client = await site.client()
        await client.send(b"".join(request(path) for path in paths))
        assert [(await client.answer()).body for _ in paths] == paths
        assert a.paths == paths


async def test_pipelined_behind_a_body(serving, origin):
    post = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    chunked = b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
    async with origin() as a, serving(a) as site:
        client = await site.client()
        await client.send(post + chunked + request(b"/3"))
        for _ in range(3):
            assert (await client.answer()).status == 200
        assert a.paths == [b"/1", b"/2", b"/3"]
        assert [one.body for one in a.requests] == [b"abc", b"xyz", b""]


async def test_a_client_that_says_close_is_closed(serving, origin):
    async with origin() as a, serving(a) as site:
        client = await site.client()
        answer = await client.ask(request(b"/", b"Connection: close"))
        assert (answer.status, answer[b"connection"]) == (200, b"close")
        assert await client.is_ended()
        again = await site.client()
        await again.ask()
        assert a.connections == 1  # the backend's connection was kept all the same


async def test_an_old_client_is_closed_unless_it_asks_not_to_be(serving, origin):
    async with origin() as a, serving(a) as site:
        client = await site.client()
        answer = await client.ask(request(version=b"1.0"))
        assert (answer.status, answer[b"connection"]) == (200, b"close")
        assert await client.is_ended()
        client = await site.client()
        for _ in range(2):
            answer = await client.ask(request(b"/", b"Connection: keep-alive", version=b"1.0"))
            assert (answer.body, answer[b"connection"]) == (b"ok", b"keep-alive")


async def test_an_old_client_gets_a_chunked_answer_to_the_end_of_the_connection(serving, origin):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with origin(answering(chunked)) as a, serving(a) as site:
        client = await site.client()
        answer = await client.ask(request(b"/", b"Connection: keep-alive", version=b"1.0"))
        assert answer[b"transfer-encoding"] is None
        assert (answer.body, answer[b"connection"]) == (b"abcde", b"close")


async def test_an_old_backend_ends_its_answer_with_its_connection(serving, origin):
    async def old(peer, requests):
        requests.append(await peer.request())
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with origin(old) as a, serving(a) as site:
        client = await site.client()
        for _ in range(2):
            answer = await client.ask()
            assert (answer.body, answer[b"transfer-encoding"]) == (b"all of it", b"chunked")
            assert answer[b"via"] == b"1.0 marchproxy"
        assert a.connections == 2
        assert a.requests[0].start == b"GET / HTTP/1.1"


@pytest.mark.parametrize("last", [b"Connection: close\r\n", b""])
async def test_a_backend_that_closes_is_asked_on_another_connection(serving, origin, last):
    async def once(peer, requests):
        requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok" % last)

    async with origin(once) as a, serving(a) as site:
        client = await site.client()
        for _ in range(5):
            assert (await client.ask()).body == b"ok"
        assert a.connections == 5
        await site.counts("drops.backend_reset", 0)


async def test_no_connection_to_backends_is_kept_where_settings_say_so(serving, origin):
    settings = Settings(worker_threads=1, backend_keep_alive=False)
    async with origin() as a, serving(a, settings=settings) as site:
        client = await site.client()
        for _ in range(3):
            assert (await client.ask()).body == b"ok"
        assert a.connections == 3


async def test_a_client_that_waits_too_long_is_closed(serving, origin):
    settings = Settings(worker_threads=1, keep_alive_timeout=0.3)
    async with origin() as a, serving(a, settings=settings) as site:
        client = await site.client()
        assert (await client.ask()).status == 200
        assert await client.is_ended()
        await site.counts("connections_active", 0)


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n'),
    ],
)
async def test_answers_without_a_body(serving, origin, method, head):
    async with origin(answering(head)) as a, serving(a) as site:
        client = await site.client()
        for _ in range(2):
            answer = await client.ask(GET.replace(b"GET", method))
            assert answer.status == int(head[9:12])
            assert answer[b"content-length"] == (b"5" if b"Content-Length" in head else None)
        assert a.connections == 1


async def test_interim_answers_are_passed_on_but_not_to_old_clients(serving, origin):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    async with origin(answering(hints + OK)) as a, serving(a) as site:
        client = await site.client()
        first = await client.ask()
        assert (first.status, first[b"link"]) == (103, b"</a.css>; rel=preload")
        assert (await client.answer()).body == b"ok"
        old = await site.client()
        assert (await old.ask(request(version=b"1.0"))).status == 200
