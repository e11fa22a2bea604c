"""Windows, streams and connections: what a backend takes at once is respected, and who has more waits or is held."""

from __future__ import annotations

import attrs
import pytest
import trio
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, HeadersFrame, WindowUpdateFrame

from marchproxy_core.config import Settings
from plugins.application.tests.http2_backends.rig import client_of, echo, http2, stands_still
from plugins.application.tests.http_rig import GET

LARGE = bytes(range(256)) * (8 << 12)
"""8 MiB."""
UNREAD_BYTES = 64 << 20
MOST_SENT_BYTES = 24 << 20
"""What the kernel's buffers and all windows hold, with room to spare."""


async def test_large_bodies_pass_both_ways(serving, http2_origin):
    async with http2_origin() as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                client.send,
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(LARGE), LARGE),
            )
            assert (await client.answer()).body == LARGE


async def test_large_bodies_of_http_2_pass_both_ways(serving, http2_origin):
    async with (
        http2_origin() as origin,
        serving(origin.backend, http=http2()) as site,
        client_of(site) as client,
    ):
        answer = await client.answer(await client.ask(body=LARGE))
        assert answer.body == LARGE


async def test_a_client_that_does_not_read_holds_its_own_stream_alone(serving, http2_origin):
    sent = [0]

    async def answer(asked):
        if asked.path != b"/endless":
            await echo(asked)
            return
        await asked.head()
        while sent[0] < UNREAD_BYTES:
            await asked.send(bytes(1 << 16))
            sent[0] += 1 << 16

    async with http2_origin(answer) as origin, serving(origin.backend, http=http2()) as site:
        slow = await site.client()
        await slow.send(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        await stands_still(lambda: sent[0])
        assert sent[0] < MOST_SENT_BYTES
        assert (await (await site.client()).ask()).status == 200
        assert len(origin.connections) == 1
        before = sent[0]
        await slow.exactly(UNREAD_BYTES // 2)
        assert sent[0] > before


async def test_a_backend_that_does_not_read_holds_the_client(serving, http2_origin):
    async with http2_origin(reads=False) as origin, serving(origin.backend, http=http2()) as site:
        client = await site.client()
        sent = [0]

        async def upload():
            await client.stream.send_all(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % UNREAD_BYTES
            )
            while sent[0] < UNREAD_BYTES:
                await client.stream.send_all(bytes(1 << 16))
                sent[0] += 1 << 16

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await stands_still(lambda: sent[0])
            assert sent[0] < MOST_SENT_BYTES
            (asked,) = origin.requests
            assert len(asked.body) == 65535  # the window that h2 has at first
            nursery.cancel_scope.cancel()


async def test_a_window_that_shrinks_below_nothing_is_waited_for(serving, raw_origin):
    """INITIAL_WINDOW_SIZE may make the windows of open streams negative (RFC 9113, section 6.9.2)."""
    got = []

    async def serve(raw):
        await raw.begin({SettingCodes.INITIAL_WINDOW_SIZE: 10})
        number = (await raw.until(HeadersFrame)).stream_id
        while sum(got) < 25:
            frame = await raw.until(DataFrame)
            got.append(len(frame.data))
            await raw.send(WindowUpdateFrame(number, window_increment=5))
        await raw.send(raw.answer(number))
        await trio.sleep_forever()

    async with raw_origin(serve, begins=False) as server, serving(server.backend, http=http2()) as site:
        client = await site.client()
        # The first requests may be on their way before the SETTINGS are read, so this one waits for them.
        request = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 25\r\n\r\n"
        await client.send(request)
        await client.send(b"b" * 25)
        assert (await client.answer()).status == 200
        assert sum(got) == 25


@attrs.define
class Crowd:
    """Counts how many are in it at once."""

    inside: int = 0
    most: int = 0

    async def answer(self, asked):
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        self.inside -= 1
        await echo(asked)


async def ask_all(site, count):
    statuses = []

    async def one():
        statuses.append((await (await site.client()).ask()).status)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return statuses


async def test_beyond_the_backends_streams_another_connection_is_made(serving, http2_origin):
    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 4}
    async with http2_origin(settings=settings) as origin, serving(origin.backend, http=http2()) as site:
        await (await site.client()).ask()  # from here on its SETTINGS are known
        assert await ask_all(site, 30) == [200] * 30
        assert 1 <= len(origin.connections) <= 30 // 4 + 1
        for connection in origin.connections:
            assert connection.h2.open_inbound_streams <= 4


async def test_a_limit_on_connections_has_requests_wait(serving, http2_origin):
    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}
    http = http2(max_backend_connections=1)
    crowd = Crowd()
    async with (
        http2_origin(crowd.answer, settings=settings) as origin,
        serving(origin.backend, http=http) as site,
    ):
        await (await site.client()).ask()
        assert await ask_all(site, 30) == [200] * 30
        assert len(origin.connections) == 1
        assert crowd.most <= 2


async def test_too_many_that_wait_are_refused(serving, http2_origin):
    settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    http = http2(max_backend_connections=1, max_waiting=1)
    release = trio.Event()

    async def answer(asked):
        if asked.path == b"/slow":
            await release.wait()
        await echo(asked)

    async with http2_origin(answer, settings=settings) as origin, serving(origin.backend, http=http) as site:
        await (await site.client()).ask()
        first, second, third = [await site.client() for _ in range(3)]
        await first.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        while len(origin.requests) < 2:
            await trio.lowlevel.checkpoint()
        await second.send(GET)
        await site.counts("connections_active", 4)
        answers = {}

        async def ask_third():
            answers["third"] = (await third.ask()).status

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_third)
            await site.counts("drops.pool_exhausted", 1)
            release.set()
        assert (await first.answer()).status == 200
        waited = (await second.answer()).status
        assert sorted([waited, answers["third"]]) == [200, 503]


async def test_an_idle_connection_is_closed_with_a_goaway(serving, http2_origin):
    settings = Settings(worker_threads=1, backend_pool_timeout=0.5)
    async with http2_origin() as origin, serving(origin.backend, http=http2(), settings=settings) as site:
        client = await site.client()
        assert (await client.ask()).status == 200
        (connection,) = origin.connections
        with trio.fail_after(10):
            while connection.h2.state_machine.state.name != "CLOSED":
                await trio.lowlevel.checkpoint()
        assert (await client.ask()).status == 200
        assert len(origin.connections) == 2


@pytest.mark.parametrize("count", [1, 7])
async def test_requests_that_come_while_it_connects_share_the_connection(serving, http2_origin, count):
    async with http2_origin() as origin, serving(origin.backend, http=http2()) as site:
        assert await ask_all(site, count) == [200] * count
        assert len(origin.connections) == 1
