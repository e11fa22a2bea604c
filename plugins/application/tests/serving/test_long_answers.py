"""Long answers are spliced where nobody has to see them; their bytes come in order however the client reads."""

from __future__ import annotations

import gzip
import random

import pytest
import trio.testing

from marchproxy_core.services import Compression, Http
from plugins.application.tests.http_rig import answering

LONG = random.Random(9112).randbytes(3 << 20)
TEXT = b"".join(b"%d bottles of beer\r\n" % count for count in range(200_000))


async def test_a_client_that_reads_in_spurts_gets_the_bytes_in_their_order(serving, origin):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LONG)
    async with origin(answering(lambda request: head + LONG)) as a, serving(a) as site:
        client = await site.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        for _ in range(3):
            got = await client.head()
            assert got.status == 200
            body = b""
            while len(body) < len(LONG):
                await trio.testing.wait_all_tasks_blocked(0.01)  # the proxy goes on until everything is full
                body += await client.exactly(min(300_007, len(LONG) - len(body)))
            assert body == LONG
        assert a.connections == 1


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
async def test_a_long_text_that_is_compressed_is_whole(serving, origin, framing):
    fields = b"Content-Type: text/plain\r\n"
    whole = {
        "length": b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(TEXT), TEXT),
        "chunks": b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (fields, len(TEXT), TEXT),
        "end": b"HTTP/1.1 200 OK\r\n%bConnection: close\r\n\r\n%b" % (fields, TEXT),
    }[framing]

    async def one(peer, requests):
        del requests
        await peer.request()
        await peer.send(whole)
        if framing == "end":
            await peer.stream.aclose()

    http = Http(compression=(Compression.GZIP,))
    backend = one if framing == "end" else answering(lambda request: whole)
    async with origin(backend) as a, serving(a, http=http) as site:
        client = await site.client()
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        assert answer[b"content-encoding"] == b"gzip"
        assert gzip.decompress(answer.body) == TEXT
        plain = await (await site.client()).ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert plain[b"content-encoding"] is None
        assert plain[b"vary"] == b"Accept-Encoding"
        assert plain.body == TEXT
