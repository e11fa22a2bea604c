"""Frames by hand, in the order of RFC 9113: what ends a stream, what ends the connection, and with which code."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from marchproxy_application.http2.frames import PREFACE
from marchproxy_core.testing import waiting
from marchproxy_core.testing.laws.patience import in_time
from plugins.application.tests.http2.rig import CONNECT, GET

NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED = 0, 1, 3, 5
FRAME_SIZE_ERROR, REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 6, 7, 9, 11
POST = ((b":method", b"POST"), *GET[1:])


def frame(kind, flags, stream, body):
    """Return a frame that no library would write."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


# 3. Starting HTTP/2


async def test_3_4_our_preface_is_settings(serving):
    async with serving() as tier, tier.raw(begun=False) as raw:
        with in_time("SETTINGS come first"):
            await raw.send(PREFACE)
            assert isinstance(await raw.next(), SettingsFrame)


async def test_3_4_a_preface_may_come_in_pieces(serving):
    async with serving() as tier, tier.raw(begun=False) as raw:
        with in_time("a request is answered"):
            await raw.send(PREFACE[:20])
            assert isinstance(await raw.next(), SettingsFrame)
            await raw.send(PREFACE[20:] + SettingsFrame(0).serialize())
            await raw.send(raw.head(1))
            assert await raw.status() == 200


async def test_3_4_a_wrong_preface_ends_the_connection(serving):
    async with serving() as tier, tier.raw(begun=False) as raw:
        with in_time("GOAWAY comes"):
            await raw.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + SettingsFrame(0).serialize())
            assert await raw.connection_error() == PROTOCOL_ERROR
        assert (await tier.drops())["http2_error"] == 1


async def test_3_4_settings_come_first(serving):
    async with serving() as tier, tier.raw(begun=False) as raw:
        with in_time("GOAWAY comes"):
            await raw.send(PREFACE, PingFrame(0, opaque_data=b"12345678"))
            assert await raw.connection_error() == PROTOCOL_ERROR


async def test_3_1_http_1_1_is_spoken_beside_it(serving):
    async with serving() as tier, tier.raw(begun=False) as raw:
        with in_time("HTTP/1.1 is answered"):
            await raw.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")
            assert (await raw.stream.receive_some()).startswith(b"HTTP/1.1 200 ")


# 4. HTTP frames


async def test_4_1_unknown_frames_are_ignored(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("a request is answered"):
            await raw.send(frame(0x16, 0xFF, 0, b"x"), frame(0x16, 0, 77, b""), raw.head(1))
            assert await raw.status() == 200


async def test_4_2_too_large_a_frame(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(frame(0, 0, 1, b"x" * 16385))
            assert await raw.connection_error() == FRAME_SIZE_ERROR


async def test_4_3_a_block_that_cannot_be_decoded(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(HeadersFrame(1, data=b"\xff\xff\xff\xff\xff", flags=["END_HEADERS", "END_STREAM"]))
            assert await raw.connection_error() in (COMPRESSION_ERROR, PROTOCOL_ERROR)


async def test_4_3_a_block_in_many_pieces(serving):
    async with serving() as tier, tier.raw() as raw:
        block = raw.encoder.encode(list(GET))
        pieces = [block[at : at + 3] for at in range(0, len(block), 3)]
        with in_time("a request is answered"):
            await raw.send(HeadersFrame(1, data=pieces[0], flags=["END_STREAM"]))
            await raw.send(*(ContinuationFrame(1, data=piece) for piece in pieces[1:-1]))
            await raw.send(ContinuationFrame(1, data=pieces[-1], flags=["END_HEADERS"]))
            assert await raw.status() == 200


# 5. Streams


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(DataFrame(1, data=b"x"), id="DATA"),
        pytest.param(RstStreamFrame(1), id="RST_STREAM"),
        pytest.param(WindowUpdateFrame(1, window_increment=1), id="WINDOW_UPDATE"),
    ],
)
async def test_5_1_idle_streams_take_nothing_but_headers(serving, sent):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(sent)
            assert await raw.connection_error() == PROTOCOL_ERROR


async def test_5_1_data_behind_the_end_of_a_stream(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("an error comes"):
            await raw.send(raw.head(1, POST), DataFrame(1, data=b"x"))
            assert await raw.stream_error() == STREAM_CLOSED


async def test_5_1_1_streams_are_odd(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(raw.head(2))
            assert await raw.connection_error() == PROTOCOL_ERROR


async def test_5_1_1_streams_count_upwards(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(raw.head(5), raw.head(3))
            assert await raw.connection_error() == PROTOCOL_ERROR


async def test_5_1_2_too_many_streams_are_refused(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("the hundred and first is refused"):
            await raw.send(*(raw.head(number, POST, ends=False) for number in range(1, 203, 2)))
            assert await raw.stream_error(201) == REFUSED_STREAM
            await raw.send(DataFrame(1, flags=["END_STREAM"]))
            assert await raw.status(1) == 200


async def test_5_1_2_far_too_many_end_the_connection(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("the connection ends"):
            await raw.send(*(raw.head(number, POST, ends=False) for number in range(1, 1203, 2)))
            await waiting.until(lambda: has_dropped(tier, "http2_error", "http2_flood"))


async def has_dropped(tier, *reasons):
    drops = await tier.drops()
    return any(reason in drops for reason in reasons)


async def test_5_3_1_a_stream_that_depends_on_itself(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(PriorityFrame(1, depends_on=1))
            assert await raw.connection_error() == PROTOCOL_ERROR


async def test_5_3_2_priorities_are_ignored(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("a request is answered"):
            await raw.send(PriorityFrame(7, depends_on=0, stream_weight=3), raw.head(1, flags=["PRIORITY"]))
            assert await raw.status() == 200


# 6. Frame definitions


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        pytest.param(frame(0, 0, 0, b"x"), {PROTOCOL_ERROR}, id="6.1 DATA on stream 0"),
        pytest.param(frame(1, 4, 0, b"\x82"), {PROTOCOL_ERROR}, id="6.2 HEADERS on stream 0"),
        pytest.param(frame(1, 0xC, 1, b"\x05\x82"), {PROTOCOL_ERROR}, id="6.2 padding beyond the frame"),
        pytest.param(frame(2, 0, 0, b"\0\0\0\0\1"), {PROTOCOL_ERROR}, id="6.3 PRIORITY on stream 0"),
        pytest.param(frame(3, 0, 0, b"\0\0\0\0"), {PROTOCOL_ERROR}, id="6.4 RST_STREAM on stream 0"),
        pytest.param(frame(3, 0, 1, b"\0\0\0"), {FRAME_SIZE_ERROR}, id="6.4 RST_STREAM of 3 bytes"),
        pytest.param(frame(4, 0, 1, b""), {PROTOCOL_ERROR}, id="6.5 SETTINGS on a stream"),
        pytest.param(frame(4, 0, 0, b"\0\0\0"), {FRAME_SIZE_ERROR}, id="6.5 SETTINGS of 3 bytes"),
        pytest.param(
            frame(4, 1, 0, b"\0\1\0\0\0\0"), {FRAME_SIZE_ERROR, PROTOCOL_ERROR}, id="6.5 ACK with a body"
        ),
        pytest.param(frame(4, 0, 0, b"\0\2\0\0\0\2"), {PROTOCOL_ERROR}, id="6.5.2 ENABLE_PUSH 2"),
        pytest.param(frame(4, 0, 0, b"\0\4\x80\0\0\0"), {FLOW_CONTROL_ERROR}, id="6.5.2 window of 2^31"),
        pytest.param(frame(4, 0, 0, b"\0\5\0\0\x10\0"), {PROTOCOL_ERROR}, id="6.5.2 frames of 4096"),
        pytest.param(frame(5, 4, 1, b"\0\0\0\2\x82"), {PROTOCOL_ERROR}, id="6.6 PUSH_PROMISE"),
        pytest.param(frame(6, 0, 1, b"12345678"), {PROTOCOL_ERROR}, id="6.7 PING on a stream"),
        pytest.param(frame(6, 0, 0, b"1234567"), {FRAME_SIZE_ERROR}, id="6.7 PING of 7 bytes"),
        pytest.param(frame(7, 0, 1, b"\0" * 8), {PROTOCOL_ERROR}, id="6.8 GOAWAY on a stream"),
        pytest.param(frame(8, 0, 0, b"\0\0\0\0"), {PROTOCOL_ERROR}, id="6.9 WINDOW_UPDATE of 0"),
        pytest.param(frame(8, 0, 0, b"\0\0\1"), {FRAME_SIZE_ERROR}, id="6.9 WINDOW_UPDATE of 3 bytes"),
        pytest.param(
            frame(8, 0, 0, b"\x7f\xff\xff\xff"), {FLOW_CONTROL_ERROR}, id="6.9.1 window beyond 2^31-1"
        ),
        pytest.param(frame(9, 4, 1, b"\x82"), {PROTOCOL_ERROR}, id="6.10 lone CONTINUATION"),
    ],
)
async def test_6_frames_that_end_the_connection(serving, sent, codes):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(sent)
            assert await raw.connection_error() in codes
        assert (await tier.drops())["http2_error"] == 1


async def test_6_1_padding_counts_and_is_left_out(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("a padded body comes back bare"):
            await raw.send(raw.head(1, POST, ends=False))
            await raw.send(DataFrame(1, data=b"hello", pad_length=100, flags=["PADDED", "END_STREAM"]))
            assert (await raw.until(DataFrame)).data == b"hello"
        assert tier.requests[0].body == b"hello"


async def test_6_4_a_reset_of_a_closed_stream_is_ignored(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("the next request is answered"):
            await raw.send(raw.head(1))
            assert await raw.status(1) == 200
            await raw.send(RstStreamFrame(1, error_code=8), raw.head(3))
            assert await raw.status(3) == 200


async def test_6_5_3_settings_are_acknowledged(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("an acknowledgement comes"):
            await raw.send(SettingsFrame(0, settings={0x99: 5}))
            await raw.until(SettingsFrame, flag="ACK")
            await raw.until(SettingsFrame, flag="ACK")


async def test_6_6_nobody_may_push(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(
                raw.head(1), PushPromiseFrame(1, promised_stream_id=2, data=b"\x82", flags=["END_HEADERS"])
            )
            assert await raw.connection_error() == PROTOCOL_ERROR


async def test_6_7_pings_are_answered(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("a ping is answered"):
            await raw.send(PingFrame(0, opaque_data=b"abcdefgh"))
            assert (await raw.until(PingFrame, flag="ACK")).opaque_data == b"abcdefgh"


async def test_6_8_a_client_that_says_goodbye_gets_its_answers(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("the answer comes, then the end"):
            await raw.send(raw.head(1, POST, ends=False), GoAwayFrame(0))
            await raw.send(DataFrame(1, data=b"hello", flags=["END_STREAM"]))
            assert await raw.status() == 200
            assert (await raw.until(DataFrame)).data == b"hello"
            while await raw.next() is not None:
                continue
        assert raw.has_ended


async def test_6_9_a_stream_window_that_overflows_ends_the_stream(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("the stream is reset, the next one is answered"):
            await raw.send(raw.head(1, POST, ends=False), WindowUpdateFrame(1, window_increment=2**31 - 1))
            assert await raw.stream_error() == FLOW_CONTROL_ERROR
            await raw.send(raw.head(3))
            assert await raw.status(3) == 200


async def test_6_9_1_more_than_our_window(serving):
    """What is behind an extended CONNECT that has no answer yet is not acknowledged."""
    data = DataFrame(1, data=b"x" * 16384).serialize()
    async with serving(never, websocket=True) as tier, tier.raw() as raw:
        with in_time("GOAWAY comes"):
            await raw.send(raw.head(1, CONNECT, ends=False), data * 17)
            assert await raw.connection_error() == FLOW_CONTROL_ERROR


async def never(asked, stream):
    del asked, stream


# 8. Expressing HTTP semantics


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(GET[1:], id="8.3.1 no method"),
        pytest.param([*GET, GET[0]], id="8.3.1 method twice"),
        pytest.param([*GET, (b":x", b"y")], id="8.3 unknown pseudo-header"),
        pytest.param([(b"x", b"y"), *GET], id="8.3 pseudo-header behind a field"),
        pytest.param([*GET, (b"X", b"y")], id="8.2.1 capital letter"),
        pytest.param([*GET, (b"x", b"a\r\nb: c")], id="8.2.1 line end in a value"),
        pytest.param([*GET, (b"x", b"a\0")], id="8.2.1 NUL in a value"),
        pytest.param([*GET, (b"x", b" a")], id="8.2.1 space before a value"),
        pytest.param([*GET, (b"connection", b"close")], id="8.2.2 connection"),
        pytest.param([*GET, (b"transfer-encoding", b"chunked")], id="8.2.2 transfer-encoding"),
        pytest.param([*GET, (b"te", b"gzip")], id="8.2.2 te"),
        pytest.param([*GET[:3], (b":path", b"")], id="8.3.1 empty path"),
        pytest.param([*GET, (b"host", b"evil")], id="8.3.1 host differs"),
    ],
)
async def test_8_what_is_malformed_ends_its_stream_alone(serving, fields):
    async with serving() as tier, tier.raw() as raw:
        with in_time("the stream is reset, the next one is answered"):
            await raw.send(raw.head(1, fields))
            assert await raw.stream_error() == PROTOCOL_ERROR
            await raw.send(raw.head(3))
            assert await raw.status(3) == 200
        assert len(tier.requests) == 1
        assert (await tier.drops())["http2_error"] == 1


@pytest.mark.parametrize("length", [b"4", b"6"])
async def test_8_1_1_content_length_must_be_what_comes(serving, length):
    async with serving() as tier, tier.raw() as raw:
        with in_time("an error comes"):
            await raw.send(raw.head(1, [*POST, (b"content-length", length)], ends=False))
            await raw.send(DataFrame(1, data=b"hello", flags=["END_STREAM"]))
            assert await raw.connection_error() == PROTOCOL_ERROR
        assert all(asked.body != b"hello" for asked in tier.requests)


async def test_8_1_pseudo_headers_in_trailers(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("the stream is reset"):
            await raw.send(raw.head(1, POST, ends=False), DataFrame(1, data=b"x"))
            await raw.send(raw.head(1, [(b":path", b"/other")]))
            assert await raw.stream_error() == PROTOCOL_ERROR


async def test_8_5_connect_is_not_there(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("501 comes"):
            await raw.send(raw.head(1, [(b":method", b"CONNECT"), (b":authority", b"a:1")], ends=False))
            assert await raw.status() == 501


async def test_8_5_nor_is_it_for_websockets_where_the_service_has_none(serving):
    async with serving() as tier, tier.raw() as raw:
        with in_time("501 comes"):
            await raw.send(raw.head(1, CONNECT, ends=False))
            assert await raw.status() == 501
        assert not tier.requests
        assert (await tier.drops())["upgrade_refused"] == 1
