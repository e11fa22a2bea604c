"""WebSocket over HTTP/2 (RFC 8441), to a backend that speaks it over HTTP/1.1 (RFC 6455)."""

from __future__ import annotations

import base64
import hashlib

import pytest
import trio
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, GoAwayFrame

from marchproxy_core.testing.laws.patience import in_time
from plugins.application.tests.http2.rig import CHUNK_BYTES, CONNECT, saying

HELLO = b"\x81\x85\1\2\3\4" + bytes(a ^ b for a, b in zip(b"hello", b"\1\2\3\4\1", strict=True))
"""A text frame of a client, masked."""
FIELDS = ((b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat"), (b"origin", b"http://a"))


def accepting(asked):
    digest = hashlib.sha1(asked.get(b"sec-websocket-key") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
    )


async def echo_frames(asked, stream):
    """Change the protocol, then send back what comes, until its end."""
    await stream.send_all(accepting(asked))
    while data := await stream.receive_some(CHUNK_BYTES):
        await stream.send_all(data)
    await stream.send_eof()
    await stream.aclose()


async def test_it_is_offered_where_the_service_has_it(serving):
    async with serving(websocket=True) as tier, tier.client() as client:
        assert client.settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1


async def test_frames_go_both_ways_until_the_client_ends(serving):
    async with serving(echo_frames, websocket=True) as tier, tier.client() as client:
        with in_time("a WebSocket is opened, used and ended"):
            number = await client.ask(*FIELDS, head=CONNECT, ends=False)
            answer = client.answers[number]
            await client.until(lambda: answer.status)
            assert answer.status == 200
            assert answer.get(b"sec-websocket-protocol") == b"chat"
            assert answer.get(b"sec-websocket-accept") is None
            for times in range(1, 4):
                await client.send(number, HELLO)
                await client.until(lambda times=times: answer.body == HELLO * times)
            await client.send(number, b"", ends=True)
            await client.answer(number)
            assert (answer.is_over, answer.body) == (True, HELLO * 3)
            assert (await client.ask(head=CONNECT, ends=False)) > number
        asked = tier.requests[0]
        assert (asked.method, asked.get(b"upgrade"), asked.get(b"connection")) == (
            b"GET",
            b"websocket",
            b"upgrade",
        )
        assert len(base64.b64decode(asked.get(b"sec-websocket-key"))) == 16
        assert asked.get(b"sec-websocket-version") == b"13"


async def test_each_has_a_key_of_its_own(serving):
    async with serving(echo_frames, websocket=True) as tier, tier.client() as client:
        with in_time("two WebSockets are opened"):
            for _ in range(2):
                number = await client.ask(*FIELDS, head=CONNECT, ends=False)
                await client.until(lambda number=number: client.answers[number].status)
        assert len({asked.get(b"sec-websocket-key") for asked in tier.requests}) == 2


async def test_what_comes_before_the_answer_waits_for_it(serving):
    accept = trio.Event()

    async def late(asked, stream):
        await accept.wait()
        await echo_frames(asked, stream)

    async with serving(late, websocket=True) as tier, tier.client() as client:
        with in_time("early frames come back"):
            number = await client.ask(*FIELDS, head=CONNECT, ends=False)
            await client.send(number, HELLO, ends=True)
            accept.set()
            assert (await client.answer(number)).body == HELLO


async def test_a_megabyte_goes_there_and_back(serving):
    frame = b"\x82\xff" + (1 << 20).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * (1 << 20)
    async with serving(echo_frames, websocket=True) as tier, tier.client() as client:
        with in_time("a large frame comes back", times=2):
            number = await client.ask(*FIELDS, head=CONNECT, ends=False)
            await client.send(number, frame)
            await client.until(lambda: len(client.answers[number].body) == len(frame))
        assert client.answers[number].body == frame


async def test_the_backend_ends_it(serving):
    async def serve(asked, stream):
        await stream.send_all(accepting(asked) + b"\x81\x02hi")
        await stream.aclose()

    async with serving(serve, websocket=True) as tier, tier.client() as client:
        with in_time("the stream ends"):
            answer = await client.answer(await client.ask(*FIELDS, head=CONNECT, ends=False))
        assert (answer.status, answer.body) == (200, b"\x81\x02hi")


async def test_a_reset_closes_the_backends_connection(serving):
    gone = trio.Event()

    async def serve(asked, stream):
        await stream.send_all(accepting(asked))
        try:
            await stream.receive_some(1)
        finally:
            gone.set()

    async with serving(serve, websocket=True) as tier, tier.client() as client:
        with in_time("the backend hears of the reset"):
            number = await client.ask(*FIELDS, head=CONNECT, ends=False)
            await client.until(lambda: client.answers[number].status)
            client.h2.reset_stream(number, 8)
            await client.flush()
            await gone.wait()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", id="200"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            id="wrong Sec-WebSocket-Accept",
        ),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n", id="other"
        ),
    ],
)
async def test_what_is_no_handshake_is_not_taken_for_one(serving, answer):
    async with serving(saying(answer), websocket=True) as tier, tier.client() as client:
        with in_time("502 comes"):
            number = await client.ask(*FIELDS, head=CONNECT, ends=False)
            await client.until(lambda: client.answers[number].is_over)
        assert client.answers[number].status == 502
        assert (await tier.drops())["bad_answer"] == 1


async def test_a_refusal_is_passed_on(serving):
    refusing = saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    async with serving(refusing, websocket=True) as tier, tier.client() as client:
        with in_time("403 comes"):
            number = await client.ask(*FIELDS, head=CONNECT, ends=False)
            await client.until(lambda: client.answers[number].is_over)
        assert (client.answers[number].status, client.answers[number].body) == (403, b"no")


async def test_a_drain_tells_it(serving):
    async with serving(echo_frames, websocket=True) as tier, tier.raw() as raw:
        with in_time("a Close with 1001 comes"):
            await raw.send(raw.head(1, (*CONNECT, *FIELDS), ends=False))
            assert await raw.status() == 200
            tier.running.drain(tier.service)
            assert (await raw.until(GoAwayFrame)).last_stream_id == 2**31 - 1
            while not isinstance(frame := await raw.next(), DataFrame):
                assert frame is not None
        assert frame.data[:4] == b"\x88\x02" + (1001).to_bytes(2, "big")
