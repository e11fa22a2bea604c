"""Bodies go through whole in both directions, in either framing, no faster than who reads them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import trio

from marchproxy_core.services import Http
from marchproxy_core.testing import until
from plugins.application.tests.http_rig import OK, answering

BODY = os.urandom(1 << 20)
UNREAD_BYTES = 64 << 20
MOST_MEMORY_BYTES = 16 << 20
"""What a worker may grow by while nobody reads; of the kernel's own buffers nothing is counted here."""


def chunked(data, size=10_007):
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x;x=y\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def post(body, *, is_chunked, more=b""):
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    return b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n%b\r\n" % (framing, more) + (
        chunked(body) if is_chunked else body
    )


def echo(request):
    if request[b"transfer-encoding"]:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(request.body)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body


def memory_bytes(pid):
    match = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(match[1]) * 1024


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 16_383, 65_537, len(BODY)])
async def test_a_body_comes_back_as_it_was(serving, origin, is_chunked, size):
    async with origin(answering(echo)) as a, serving(a) as site:
        client = await site.client()
        for _ in range(2):
            answer = await client.ask(post(BODY[:size], is_chunked=is_chunked))
            assert answer.body == BODY[:size]
        assert a.connections == 1
        await site.counts("bytes_in", 2 * size)
        await site.counts("bytes_out", 2 * size)


async def test_a_body_that_comes_byte_by_byte(serving, origin):
    async with origin(answering(echo)) as a, serving(a) as site:
        client = await site.client()
        for byte in post(b"hello", is_chunked=True):
            await client.send(bytes([byte]))
        assert (await client.answer()).body == b"hello"


async def test_trailers_go_both_ways(serving, origin):
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n"
    async with origin(answering(answer)) as a, serving(a) as site:
        client = await site.client()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head + b"1\r\nx\r\n0\r\nX-T: 1\r\n\r\n")
        got = await client.answer()
        assert (got.body, got.trailers) == (b"ok", [(b"x-sum", b"7")])
        assert a.requests[0].trailers == [(b"x-t", b"1")]


async def test_continue_is_the_backends_to_say(serving, origin):
    async def serve(peer, requests):
        message = await peer.head()
        assert message[b"expect"] == b"100-continue"
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        message.body = await peer.exactly(5)
        requests.append(message)
        await peer.send(OK)

    async with origin(serve) as a, serving(a) as site:
        client = await site.client()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        assert (await client.ask(head)).status == 100
        assert (await client.ask(b"hello")).body == b"ok"
        assert a.requests[0].body == b"hello"


async def test_a_backend_that_refuses_before_the_body_is_heard(serving, origin):
    no = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"

    async def serve(peer, requests):
        requests.append(await peer.head())
        await peer.send(no)

    async with origin(serve) as a, serving(a) as site:
        client = await site.client()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        answer = await client.ask(head)
        assert (answer.status, answer.body, answer[b"connection"]) == (417, b"no", b"close")


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_an_answer_that_comes_while_the_body_still_does_is_read_whole(serving, origin, is_chunked):
    too_large = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

    async def serve(peer, requests):
        requests.append(await peer.head())
        await peer.send(too_large)

    async with origin(serve) as a, serving(a) as site:
        client = await site.client()
        framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 100000000"
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
        await client.send(b"10000\r\n" + bytes(65536) + b"\r\n" if is_chunked else bytes(65536))
        answer = await client.answer()
        assert (answer.status, answer.body, answer[b"connection"]) == (413, b"no", b"close")
        await site.counts("answers.4xx", 1)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_what_a_client_still_sends_after_its_answer_does_not_reset_it(serving, origin, is_chunked):
    async def serve(peer, requests):
        requests.append(await peer.head())
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")

    async with origin(serve) as a, serving(a) as site:
        client = await site.client()
        framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 100000"
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % framing)
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"no")
        assert await client.is_ended()
        for _ in range(8):
            await client.send(b"400\r\n" + bytes(1024) + b"\r\n" if is_chunked else bytes(1024))


async def test_a_client_that_does_not_read_holds_the_backend(serving, origin):
    sent = [0]

    async def serve(peer, requests):
        requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(UNREAD_BYTES // 65536):
            await peer.stream.send_all(b"10000\r\n" + bytes(65536) + b"\r\n")
            sent[0] += 65536
        await peer.stream.send_all(b"0\r\n\r\n")

    async with origin(serve) as a, serving(a) as site:
        (pid,) = site.running.attachment.pool.pids
        client = await site.client()
        before = memory_bytes(pid)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await stands_still(sent)
        assert sent[0] < UNREAD_BYTES
        assert memory_bytes(pid) - before < MOST_MEMORY_BYTES
        answer = await client.answer()
        assert len(answer.body) == UNREAD_BYTES


async def test_a_backend_that_does_not_read_holds_the_client(serving, origin):
    read_on = trio.Event()

    async def serve(peer, requests):
        head = await peer.head()
        await read_on.wait()
        left = UNREAD_BYTES - len(peer.buffer)
        while left:
            left -= len(await peer.stream.receive_some(1 << 16))
        requests.append(head)
        await peer.send(OK)

    sent = [0]

    async def send(client):
        for _ in range(UNREAD_BYTES // 65536):
            await client.stream.send_all(bytes(65536))
            sent[0] += 65536

    async with origin(serve) as a, serving(a, http=Http(max_body_bytes=UNREAD_BYTES)) as site:
        (pid,) = site.running.attachment.pool.pids
        client = await site.client()
        before = memory_bytes(pid)
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % UNREAD_BYTES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client)
            await stands_still(sent)
            assert sent[0] < UNREAD_BYTES
            assert memory_bytes(pid) - before < MOST_MEMORY_BYTES
            read_on.set()
            assert (await client.answer()).body == b"ok"
        assert sent[0] == UNREAD_BYTES


async def stands_still(count):
    """Wait until a count has begun, and has been the same for a while."""
    seen = [-1, 0]

    def same():
        seen[:] = [count[0], seen[1] + 1 if count[0] == seen[0] else 0]
        return count[0] > 0 and seen[1] >= 15

    await until(same)
