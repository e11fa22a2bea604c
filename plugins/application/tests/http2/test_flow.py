"""Windows: whoever is slow is waited for, within bounds, and holds up nobody else (RFC 9113, section 5.2)."""

from __future__ import annotations

import pytest
import trio
from h2.settings import SettingCodes
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from marchproxy_application.http2.frames import PREFACE
from marchproxy_core.config import Settings
from marchproxy_core.testing import waiting
from marchproxy_core.testing.laws.patience import in_time
from plugins.application.tests.http2.rig import GET, echo

POST = ((b":method", b"POST"), *GET[1:])
LARGE = (*GET[:3], (b":path", b"/large"))
LARGE_BYTES = 64 << 20
PIECE = bytes(range(256)) * 256
NO_ERROR, CANCEL = 0, 8


class Large:
    """A backend that has a large answer, and knows how much of it was taken."""

    def __init__(self, size=LARGE_BYTES):
        self.size = size
        self.sent = 0

    async def __call__(self, asked, stream):
        if asked.target != b"/large":
            await echo(asked, stream)
            return
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.size)
        for _ in range(self.size // len(PIECE)):
            await stream.send_all(PIECE)
            self.sent += len(PIECE)


async def test_a_shut_stream_holds_its_backend_and_nobody_else(serving):
    large = Large()
    async with serving(large) as tier, tier.client(reads=False, window=20000) as client:
        with in_time("the window of one stream fills, another stream is answered"):
            number = await client.ask(head=LARGE)
            await client.until(lambda: len(client.answers[number].body) == 20000)
            for _ in range(20):
                assert (await client.get(head=POST, body=b"x")).body == b"x"
        assert len(client.answers[number].body) == 20000
        assert large.sent < LARGE_BYTES
        client.reads = True
        with in_time("the rest comes once the window opens", times=6):
            client.h2.increment_flow_control_window(1 << 24)
            client.h2.increment_flow_control_window(1 << 24, number)
            await client.flush()
            answer = await client.answer(number)
        assert len(answer.body) == LARGE_BYTES
        assert answer.body == PIECE * (LARGE_BYTES // len(PIECE))


async def test_a_shut_connection_opens_for_all(serving):
    async with serving(Large(1 << 20)) as tier, tier.client(reads=False, window=1 << 20) as client:
        with in_time("two answers share the connection's window", times=2):
            first, second = [await client.ask(head=LARGE) for _ in range(2)]
            got = client.answers
            await client.until(lambda: len(got[first].body) + len(got[second].body) == 65535)
            client.h2.increment_flow_control_window(4 << 20)
            await client.flush()
            assert len((await client.answer(first)).body) == 1 << 20
            assert len((await client.answer(second)).body) == 1 << 20


async def test_settings_open_the_windows_of_streams(serving):
    async with serving(Large(1 << 16)) as tier, tier.raw(begun=False) as raw:
        with in_time("the answer comes once the windows are wider"):
            await raw.begin({SettingCodes.INITIAL_WINDOW_SIZE: 10})
            await raw.send(raw.head(1, LARGE))
            assert len((await raw.until(DataFrame)).data) == 10
            await raw.send(SettingsFrame(0, settings={SettingCodes.INITIAL_WINDOW_SIZE: 65535}))
            got = 10
            while got < 65535:
                got += len((await raw.until(DataFrame)).data)
            await raw.send(WindowUpdateFrame(0, window_increment=1), WindowUpdateFrame(1, window_increment=1))
            last = await raw.until(DataFrame)
            assert (len(last.data), "END_STREAM" in last.flags) == (1, True)


async def test_large_answers_take_turns(serving):
    async with serving(Large(8 << 20)) as tier, tier.client() as client:
        with in_time("two large answers come", times=6):
            first, second = [await client.ask(head=LARGE) for _ in range(2)]
            got = client.answers
            await client.until(lambda: got[first].is_over or got[second].is_over)
            assert min(len(got[first].body), len(got[second].body)) > 2 << 20
            await client.answer(first)
            await client.answer(second)


async def test_a_backend_that_does_not_read_holds_the_client(serving):
    reads = trio.Event()
    received = 0

    async def serve(asked, stream):
        nonlocal received
        if asked.target != b"/held":
            await echo(asked, stream)
            return
        await reads.wait()
        received = len(asked.body)
        while received < LARGE_BYTES:
            received += len(await stream.receive_some(1 << 20))
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    fields = ((b"content-length", b"%d" % LARGE_BYTES), (b"x-read-by-hand", b"1"))
    async with serving(serve) as tier, tier.client() as client:
        number = await client.ask(*fields, head=(*POST[:3], (b":path", b"/held")), ends=False)
        sent = 0
        with in_time("the windows fill, and others are answered", times=2):
            while client.h2.local_flow_control_window(number) > 0 and sent < LARGE_BYTES:
                room = min(client.h2.local_flow_control_window(number), 16384)
                client.h2.send_data(number, PIECE[:room])
                sent += room
                await client.flush()
                if client.h2.local_flow_control_window(number) <= 0:
                    await client.get()  # gives the proxy the time to open the window, if it would
            assert sent < LARGE_BYTES
            assert (await client.get()).status == 200
        reads.set()
        with in_time("the rest goes once the backend reads", times=6):
            await client.send(number, b"x" * (LARGE_BYTES - sent), ends=True)
            assert (await client.answer(number)).status == 200
        assert received == LARGE_BYTES


async def test_a_window_that_stays_shut_ends_its_stream(serving):
    settings = Settings(worker_threads=1, write_timeout=1)
    async with serving(Large(), settings=settings) as tier, tier.client(reads=False, window=1000) as client:
        with in_time("the stream is reset"):
            number = await client.ask(head=LARGE)
            await client.until(lambda: client.answers[number].reset is not None)
        assert client.answers[number].reset == CANCEL
        with in_time("others are served"):
            assert (await client.get()).status == 200
        assert (await tier.drops())["write_timeout"] == 1


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(serving):
    settings = Settings(worker_threads=1, read_timeout=1)
    async with serving(settings=settings) as tier, tier.client() as client:
        with in_time("408 comes"):
            number = await client.ask(head=POST, ends=False)
            await client.until(lambda: client.answers[number].reset is not None)
        assert (client.answers[number].status, client.answers[number].reset) == (408, NO_ERROR)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param((PREFACE,), id="no settings"),
        pytest.param((PREFACE, SettingsFrame(0), HeadersFrame(1, data=b"\x82")), id="half a header block"),
        pytest.param((PREFACE, SettingsFrame(0), b"\0\0\5\1"), id="half a frame"),
    ],
)
async def test_what_stops_half_way_is_closed(serving, sent):
    settings = Settings(worker_threads=1, read_timeout=1)
    async with serving(settings=settings) as tier, tier.raw(begun=False) as raw:
        with in_time("the connection is closed"):
            await raw.send(*sent)
            while await raw.next() is not None:
                continue
        assert (await tier.drops())["read_timeout"] == 1


async def test_an_idle_connection_is_closed_with_a_goodbye(serving):
    settings = Settings(worker_threads=1, keep_alive_timeout=1)
    async with serving(settings=settings) as tier, tier.raw() as raw:
        with in_time("GOAWAY comes, and the end"):
            await raw.send(raw.head(1))
            assert await raw.status() == 200
            goodbye = await raw.until(GoAwayFrame)
            assert (goodbye.error_code, goodbye.last_stream_id) == (NO_ERROR, 1)
            while await raw.next() is not None:
                continue
        assert not await tier.drops()


async def test_a_client_that_goes_takes_its_streams_with_it(serving):
    gone = trio.Event()

    async def serve(asked, stream):
        del asked
        await stream.receive_some(1)  # the proxy closes what nobody waits for
        gone.set()

    async with serving(serve) as tier:
        with in_time("the backend's connection is closed"):
            async with tier.client() as client:
                await client.ask()
                await waiting.until(lambda: len(tier.requests) == 1)
            await gone.wait()


async def test_resets_of_streams_that_wait_for_windows(serving):
    async with serving(Large()) as tier, tier.raw(begun=False) as raw:
        with in_time("twenty large answers are given up, one request is answered", times=2):
            await raw.begin({SettingCodes.INITIAL_WINDOW_SIZE: 100})
            for number in range(1, 41, 2):
                await raw.send(raw.head(number, LARGE))
                await raw.until(DataFrame, number=number)
                await raw.send(RstStreamFrame(number, error_code=CANCEL))
            await raw.send(raw.head(41))
            assert await raw.status(41) == 200
