"""What becomes of requests whose backend resets, refuses, goes away, breaks off or talks nonsense."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import hpack
import pytest
import trio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Endpoint, Retry
from plugins.application.tests.http2_backends.rig import client_of, echo, http2
from plugins.application.tests.http_rig import GET

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CALM = 6, 7, 8, 9, 11


def once(*codes):
    """Make an answer that resets the first streams with these codes, then answers."""
    left = list(codes)

    async def answer(asked):
        if left:
            await asked.cancel(left.pop(0))
        else:
            await echo(asked)

    return answer


async def test_a_refused_stream_is_asked_again_whatever_it_asks(serving, http2_origin):
    async with http2_origin(once(REFUSED_STREAM)) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        assert (await client.ask(POST)).body == b"hi"
        assert len(origin.requests) == 2
        await site.counts("retries", 1)


async def test_a_reset_stream_is_asked_again_where_that_is_safe(serving, http2_origin):
    async with http2_origin(once(INTERNAL_ERROR)) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        assert (await client.ask()).status == 200
        assert len(origin.requests) == 2


async def test_a_reset_stream_is_not_asked_again_where_that_is_not_safe(serving, http2_origin):
    async with http2_origin(once(INTERNAL_ERROR)) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        assert (await client.ask(POST)).status == 502
        assert len(origin.requests) == 1
        await site.counts("drops.backend_reset", 1)
        assert (await client.ask(POST)).status == 200
        assert len(origin.connections) == 1


async def test_an_answer_that_is_reset_is_cut(serving, http2_origin):
    async def answer(asked):
        await asked.head((b"content-length", b"100"))
        await asked.send(b"some")
        await asked.cancel(INTERNAL_ERROR)

    async with (
        http2_origin(answer) as origin,
        serving(origin.backend, http=http2()) as site,
        client_of(site) as client,
    ):
        got = await client.get()
        assert (got.status, got.is_over, got.reset) == (200, False, INTERNAL_ERROR)
        await site.counts("drops.answer_cut", 1)


async def test_a_whole_answer_counts_although_its_stream_is_reset_behind_it(serving, http2_origin):
    async def answer(asked):
        await asked.head()
        await asked.send(b"enough", ends=True)
        await asked.cancel(NO_ERROR)

    async with http2_origin(answer) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf")
        got = await client.answer()
        assert (got.status, got.body) == (200, b"enough")
        await site.counts("drops.backend_reset", 0)


async def test_streams_above_the_last_one_of_a_goaway_are_asked_again_and_the_others_go_on(
    serving, raw_origin
):
    connections = []

    async def serve(raw):
        connections.append(raw)
        if len(connections) == 1:
            assert [await raw.request(), await raw.request()] == [1, 3]
            await raw.send(GoAwayFrame(0, last_stream_id=1, error_code=NO_ERROR))
            # That the other one has come by another connection shows that ours knows.
            await served.wait()
            await raw.send(raw.answer(1, (b"x-by", b"old")))
            while await raw.next() is not None:
                continue
            ended.set()
        else:
            await raw.send(raw.answer(await raw.request(), (b"x-by", b"new")))
            served.set()
            await trio.sleep_forever()

    served, ended = trio.Event(), trio.Event()
    async with raw_origin(serve) as server, serving(server.backend, http=http2()) as site:
        first, second = await site.client(), await site.client()
        await first.send(POST.replace(b"hi", b"1."))
        await second.send(POST.replace(b"hi", b"2."))
        answers = {(await first.answer())[b"x-by"], (await second.answer())[b"x-by"]}
        assert answers == {b"old", b"new"}
        with trio.fail_after(10):
            await ended.wait()
        await site.counts("drops.backend_reset", 0)


async def test_a_lost_connection_fails_every_request_on_it(serving, raw_origin):
    async def serve(raw):
        for _ in range(2):
            await raw.request()

    async with raw_origin(serve) as server, serving(server.backend, http=http2(retry=Retry(most=0))) as site:
        first, second = await site.client(), await site.client()
        await first.send(POST)
        await second.send(POST)
        assert [(await one.answer()).status for one in (first, second)] == [502, 502]
        await site.counts("drops.backend_reset", 2)


async def test_a_connection_that_was_closed_for_its_age_costs_nobody_anything(serving, raw_origin):
    async def serve(raw):
        number = await raw.request()
        await raw.send(raw.answer(number), GoAwayFrame(0, last_stream_id=number, error_code=NO_ERROR))

    async with raw_origin(serve) as server, serving(server.backend, http=http2(retry=Retry(most=0))) as site:
        client = await site.client()
        for _ in range(4):
            assert (await client.ask(POST)).status == 200
        assert server.opened == 4
        await site.counts("drops.backend_reset", 0)


async def test_a_backend_that_is_not_there(serving, http2_origin):
    async with http2_origin() as origin:
        backend = origin.backend
    async with serving(backend, http=http2(retry=Retry(most=0))) as site:
        client = await site.client()
        assert (await client.ask()).status == 502
        await site.counts("drops.backend_refused", 1)


async def test_a_backend_that_speaks_http_1_1_only(serving, origin):
    async with origin() as old, serving(old, http=http2(retry=Retry(most=0))) as site:
        client = await site.client()
        assert (await client.ask()).status == 502


async def test_a_client_that_cancels_has_its_request_cancelled(serving, http2_origin):
    async def answer(asked):
        if asked.path == b"/":
            await asked.head()
            await asked.send(b"first")
            await asked.gone.wait()
        else:
            await echo(asked)

    async with (
        http2_origin(answer) as origin,
        serving(origin.backend, http=http2()) as site,
        client_of(site) as client,
    ):
        number = await client.ask()
        await client.until(lambda: client.answers[number].body)
        client.h2.reset_stream(number, CANCEL)
        await client.flush()
        await origin.requests[0].gone.wait()
        assert origin.requests[0].reset == CANCEL
        assert (await (await site.client()).ask(POST.replace(b"/", b"/next", 1))).body == b"hi"
        assert len(origin.connections) == 1


async def test_a_backend_that_says_nothing_is_asked_whether_it_is_there(serving, raw_origin):
    """Its connection is not used for others until it has answered, and is given up when it does not."""
    asked = trio.Event()

    async def serve(raw):
        if not asked.is_set():
            await raw.request()
            while not isinstance(await raw.next(), PingFrame):
                continue
            asked.set()
            await trio.sleep_forever()
        await raw.send(raw.answer(await raw.request()))
        await trio.sleep_forever()

    http = http2(request_timeout_s=1.5, retry=Retry(most=0))
    async with raw_origin(serve) as server, serving(server.backend, http=http) as site:
        client = await site.client()
        assert (await client.ask()).status == 504
        with trio.fail_after(10):
            await asked.wait()
        assert (await (await site.client()).ask()).status == 200
        assert server.opened == 2


def head(number, *fields, ends=True, flags=(), status=b"200"):
    block = hpack.Encoder().encode([(b":status", status), *fields])
    return HeadersFrame(number, data=block, flags=["END_HEADERS", *(["END_STREAM"] if ends else []), *flags])


MALFORMED = {
    "no status": lambda: [
        HeadersFrame(1, data=hpack.Encoder().encode([(b"a", b"b")]), flags=["END_HEADERS"])
    ],
    "a status of letters": lambda: [head(1, status=b"abc")],
    "a pseudo-header of requests": lambda: [head(1, (b":path", b"/"))],
    "a pseudo-header behind a field": lambda: [
        HeadersFrame(
            1, data=hpack.Encoder().encode([(b"a", b"b"), (b":status", b"200")]), flags=["END_HEADERS"]
        )
    ],
    "101": lambda: [head(1, status=b"101")],
    "a capital letter": lambda: [head(1, (b"X-Name", b"1"))],
    "a line end in a value": lambda: [head(1, (b"x", b"1\r\nset-cookie: a=b"))],
    "a space before a value": lambda: [head(1, (b"x", b" 1"))],
    "connection": lambda: [head(1, (b"connection", b"close"))],
    "transfer-encoding": lambda: [head(1, (b"transfer-encoding", b"chunked"))],
    "two lengths": lambda: [head(1, (b"content-length", b"1"), (b"content-length", b"2"))],
    "a length that is none": lambda: [head(1, (b"content-length", b"-1"))],
    "no body, in spite of its length": lambda: [head(1, (b"content-length", b"1"))],
    "a body longer than its length": lambda: [
        head(1, (b"content-length", b"1"), ends=False),
        DataFrame(1, data=b"ab", flags=["END_STREAM"]),
    ],
    "a body shorter than its length": lambda: [
        head(1, (b"content-length", b"9"), ends=False),
        DataFrame(1, data=b"ab", flags=["END_STREAM"]),
    ],
    "a body before its head": lambda: [DataFrame(1, data=b"ab")],
    "an interim head at the end": lambda: [head(1, status=b"103")],
}


@pytest.mark.parametrize("wrong", MALFORMED)
async def test_a_malformed_answer_is_none_and_costs_its_stream_alone(serving, raw_origin, wrong):
    codes = []

    async def serve(raw):
        await raw.request()
        await raw.send(*MALFORMED[wrong]())
        codes.append((await raw.until(RstStreamFrame)).error_code)
        await raw.send(head(await raw.request()))
        await trio.sleep_forever()

    async with raw_origin(serve) as server, serving(server.backend, http=http2(retry=Retry(most=0))) as site:
        client = await site.client()
        assert (await client.ask()).status == 502
        await site.counts("drops.bad_answer", 1)
        assert (await client.ask()).status == 200
        assert codes == [PROTOCOL_ERROR]
        assert server.opened == 1


BROKEN = {
    "DATA of no stream": (lambda: [DataFrame(9, data=b"x")], PROTOCOL_ERROR),
    "HEADERS of an even stream": (lambda: [head(2)], PROTOCOL_ERROR),
    "RST_STREAM of no stream": (lambda: [RstStreamFrame(9)], PROTOCOL_ERROR),
    "a push": (lambda: [PushPromiseFrame(1, promised_stream_id=2, flags=["END_HEADERS"])], PROTOCOL_ERROR),
    "a header block that cannot be read": (
        lambda: [
            HeadersFrame(1, data=b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS"])
        ],
        COMPRESSION_ERROR,
    ),
    "a frame within a header block": (
        lambda: [HeadersFrame(1, data=b"\x88", flags=[]), DataFrame(1, data=b"x")],
        PROTOCOL_ERROR,
    ),
    "CONTINUATION of nothing": (lambda: [ContinuationFrame(1, data=b"\x88")], PROTOCOL_ERROR),
    "CONTINUATION without end": (
        lambda: [HeadersFrame(1, data=b"\x88", flags=[]), *[ContinuationFrame(1, data=b"")] * 40],
        PROTOCOL_ERROR,
    ),
    "a window that overflows": (
        lambda: [WindowUpdateFrame(0, window_increment=2**31 - 1)],
        FLOW_CONTROL_ERROR,
    ),
    "settings that ask for pushes": (lambda: [SettingsFrame(0, settings={2: 1})], PROTOCOL_ERROR),
    "settings with a window that is none": (
        lambda: [SettingsFrame(0, settings={4: 2**31})],
        FLOW_CONTROL_ERROR,
    ),
    "settings with a frame size that is none": (lambda: [SettingsFrame(0, settings={5: 1})], PROTOCOL_ERROR),
    "PING of a wrong size": (lambda: [b"\0\0\4\6\0\0\0\0\0abcd"], FRAME_SIZE_ERROR),
    "a frame that is too large": (lambda: [b"\x01\x00\x01\0\0\0\0\0\1"], FRAME_SIZE_ERROR),
    "more padding than frame": (lambda: [b"\0\0\2\0\x08\0\0\0\1\x05x"], PROTOCOL_ERROR),
    "a flood of pings": (lambda: [PingFrame(0)] * 2000, CALM),
}


@pytest.mark.parametrize("wrong", BROKEN)
async def test_what_breaks_the_protocol_ends_the_connection(serving, raw_origin, wrong):
    frames, code = BROKEN[wrong]
    codes = []

    async def serve(raw):
        await raw.request()
        await raw.send(*frames())
        while (frame := await raw.next()) is not None:
            if isinstance(frame, GoAwayFrame):
                codes.append(frame.error_code)

    async with raw_origin(serve) as server, serving(server.backend, http=http2(retry=Retry(most=0))) as site:
        client = await site.client()
        assert (await client.ask()).status == 502
        await site.counts("drops.bad_answer", 1)
        assert codes == [code]


async def test_a_backend_that_sends_more_than_its_window(serving, raw_origin):
    async def serve(raw):
        number = await raw.request()
        await raw.send(raw.answer(number, ends=False))
        for _ in range(1024):
            await raw.send(DataFrame(number, data=bytes(16384)))
        await raw.until(RstStreamFrame)
        await trio.sleep_forever()

    async with raw_origin(serve) as server, serving(server.backend, http=http2()) as site:
        client = await site.client()
        await client.send(GET)  # and reads nothing
        await site.counts("drops.answer_cut", 1)


async def test_connecting_has_an_end(serving, unreachable):
    settings = Settings(worker_threads=1, connect_timeout=0.5)
    async with serving(unreachable, http=http2(retry=Retry(most=0)), settings=settings) as site:
        client = await site.client()
        assert (await client.ask()).status == 504
        await site.counts("drops.backend_timeout", 1)


@pytest.fixture
def unreachable():
    """A backend whose queue is full, so that nobody is let in and nobody refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        yield Backend(endpoint=Endpoint.parse(f"{address[0]}:{address[1]}"))
