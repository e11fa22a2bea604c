"""A drain says goodbye in two steps, and streams go on (RFC 9113, section 6.8)."""

from __future__ import annotations

import trio
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame

from marchproxy_core.testing.laws.patience import in_time
from plugins.application.tests.http2.rig import GET

POST = ((b":method", b"POST"), *GET[1:])
ANY_STREAM = 2**31 - 1
NO_ERROR, REFUSED_STREAM = 0, 7


async def test_streams_go_on_and_what_was_under_way_is_served(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("a drain goes its two steps"):
            await raw.send(raw.head(1, POST, ends=False))
            await raw.send(PingFrame(0, opaque_data=b"anything"))
            await raw.until(PingFrame, flag="ACK")
            tier.running.drain(tier.service)
            first = await raw.until(GoAwayFrame)
            assert (first.last_stream_id, first.error_code) == (ANY_STREAM, NO_ERROR)
            ping = await raw.until(PingFrame)
            await raw.send(raw.head(3))  # it crossed with the GOAWAY
            assert await raw.status(3) == 200
            await raw.send(PingFrame(0, opaque_data=ping.opaque_data, flags=["ACK"]))
            second = await raw.until(GoAwayFrame)
            assert (second.last_stream_id, second.error_code) == (3, NO_ERROR)
            await raw.send(raw.head(5))
            refused = await raw.until(RstStreamFrame)
            assert (refused.stream_id, refused.error_code) == (5, REFUSED_STREAM)
            await raw.send(DataFrame(1, data=b"hello", flags=["END_STREAM"]))
            assert await raw.status(1) == 200
            assert (await raw.until(DataFrame, number=1)).data == b"hello"
            while await raw.next() is not None:
                continue
        assert len(tier.requests) == 2


async def test_a_client_that_does_not_answer_the_ping_is_told_anyway(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("the second step comes by itself, and the end"):
            await raw.send(raw.head(1))
            assert await raw.status(1) == 200
            tier.running.drain(tier.service)
            assert (await raw.until(GoAwayFrame)).last_stream_id == ANY_STREAM
            assert (await raw.until(GoAwayFrame)).last_stream_id == 1
            while await raw.next() is not None:
                continue


async def test_a_client_of_h2_takes_its_answer_and_goes(serving):
    answers = trio.Event()

    async def answer(asked, stream):
        del asked
        await answers.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with serving(answer) as tier, tier.raw() as raw:
        with in_time("an answer comes behind the goodbyes"):
            await raw.send(raw.head(1))
            await raw.send(PingFrame(0, opaque_data=b"anything"))
            await raw.until(PingFrame, flag="ACK")
            tier.running.drain(tier.service)
            await raw.until(GoAwayFrame)
            await raw.until(GoAwayFrame)
            answers.set()
            await raw.until(HeadersFrame, number=1)
            assert (await raw.until(DataFrame)).data == b"ok"
            while await raw.next() is not None:
                continue
