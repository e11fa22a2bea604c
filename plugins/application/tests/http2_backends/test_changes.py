"""A reload while requests are under way: backends flushed, taken out, or spoken to in another version."""

from __future__ import annotations

import attrs
import trio
from hyperframe.frame import HeadersFrame

from marchproxy_core.services import Http, HttpVersion, Retry
from plugins.application.tests.http2_backends.rig import client_of, http2

SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


def waiting_for(release):
    async def answer(asked):
        if asked.path == b"/slow":
            await asked.head()
            await asked.send(b"begun, ")
            await release.wait()
            await asked.send(b"ended", ends=True)
        else:
            await asked.head(ends=True)

    return answer


async def test_a_flush_ends_what_is_under_way_and_the_next_one_goes_elsewhere(serving, http2_origin):
    async with (
        http2_origin(waiting_for(trio.Event())) as flushed,
        http2_origin() as other,
        serving(flushed.backend, http=http2(retry=Retry(most=0))) as site,
        client_of(site) as client,
    ):
        number = await client.ask(head=slow_head())
        await client.until(lambda: client.answers[number].body)
        gone = attrs.evolve(flushed.backend, weight=0, flush=True)
        site.running.put(attrs.evolve(site.service, backends=(gone, other.backend)))
        assert (await client.answer(number)).reset is not None
        await site.counts("drops.flushed", 1)
        assert (await client.get()).status == 200
        assert len(other.requests) == 1


async def test_what_is_under_way_at_a_backend_that_is_taken_out_is_answered(serving, http2_origin):
    release = trio.Event()
    async with (
        http2_origin(waiting_for(release)) as old,
        http2_origin() as new,
        serving(old.backend, http=http2()) as site,
    ):
        first, second = await site.client(), await site.client()
        await first.send(SLOW)
        await first.until(b"begun, ")
        site.running.put(attrs.evolve(site.service, backends=(new.backend,)))
        while not new.requests:
            assert (await second.ask()).status == 200
        release.set()
        await first.until(b"ended")
        with trio.fail_after(10):
            while old.connections[0].h2.state_machine.state.name != "CLOSED":
                await trio.lowlevel.checkpoint()
        await site.counts("drops.answer_cut", 0)


async def test_another_version_by_a_reload(serving, raw_origin):
    async def speak_either(raw):
        raw.buffer = await raw.stream.receive_some(1 << 16)
        if raw.buffer.startswith(b"GET "):
            await raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-By: 1\r\nConnection: close\r\n\r\n")
            return
        await raw.begin()
        while (frame := await raw.next()) is not None:
            if isinstance(frame, HeadersFrame):
                await raw.send(raw.answer(frame.stream_id, (b"x-by", b"2")))

    async with (
        raw_origin(speak_either, begins=False) as server,
        serving(server.backend, http=http2()) as site,
    ):
        client = await site.client()
        assert (await client.ask())[b"x-by"] == b"2"
        for version, name in ((HttpVersion.HTTP1, b"1"), (HttpVersion.HTTP2, b"2")):
            site.running.put(attrs.evolve(site.service, http=Http(backend_protocol=version)))
            with trio.fail_after(10):
                while (await client.ask())[b"x-by"] != name:
                    continue


def slow_head():
    return ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/slow"))
