"""Requests and answers, each on its stream (RFC 9113, section 8)."""

from __future__ import annotations

import pytest
import trio
from h2.settings import SettingCodes

from marchproxy_core.services import Http
from marchproxy_core.testing.laws.patience import in_time
from plugins.application.tests.http2.rig import GET, saying

POST = ((b":method", b"POST"), *GET[1:])
HEAD = ((b":method", b"HEAD"), *GET[1:])


def body_of(size):
    return bytes(range(256)) * (size // 256)


async def test_a_request_is_answered(serving):
    async with serving() as tier, tier.client() as client:
        with in_time("a request is answered"):
            answer = await client.get((b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-own", b"1"))
        assert answer.status == 200
        assert answer.get(b"content-length") == b"0"
        assert answer.get(b"via") == b"1.1 marchproxy"
        assert answer.get(b"x-request-id")
        (asked,) = tier.requests
        assert (asked.method, asked.target, asked.get(b"host")) == (b"GET", b"/", b"example.com")
        assert asked.get(b"cookie") == b"a=1; b=2"
        assert asked.get(b"via") == b"2.0 marchproxy"
        assert asked.get(b"x-forwarded-for") == b"127.0.0.1"
        assert asked.get(b"x-own") == b"1"


async def test_streams_are_answered_as_they_are_ready(serving):
    later = trio.Event()

    async def answer(asked, stream):
        if asked.target == b"/later":
            await later.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + asked.target[1:2])

    async with serving(answer) as tier, tier.client() as client:
        with in_time("two requests are answered, the second one first"):
            first = await client.ask(head=(*GET[:3], (b":path", b"/later")))
            second = await client.ask(head=(*GET[:3], (b":path", b"/now")))
            assert (await client.answer(second)).body == b"n"
            assert not client.answers[first].status
            later.set()
            assert (await client.answer(first)).body == b"l"


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("size", [1024, 3 << 20])
async def test_bodies_go_both_ways(serving, counted, size):
    body = body_of(size)
    fields = [(b"content-length", b"%d" % size)] if counted else []
    async with serving() as tier, tier.client() as client:
        with in_time("a body goes there and back", times=3):
            answer = await client.get(*fields, head=POST, body=body)
        assert answer.body == body
        (asked,) = tier.requests
        assert asked.body == body
        assert asked.get(b"transfer-encoding") == (None if counted else b"chunked")


async def test_an_answer_in_chunks_and_its_trailers(serving):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"
    answering = saying(head + b"5\r\nhello\r\n6\r\n world\r\n0\r\nGrpc-Status: 0\r\n\r\n")
    async with serving(answering) as tier, tier.client() as client:
        with in_time("an answer comes with trailers"):
            answer = await client.get()
        assert answer.body == b"hello world"
        assert answer.trailers == [(b"grpc-status", b"0")]
        names = {name for name, _ in answer.fields}
        assert not names & {b"transfer-encoding", b"connection", b"x-hop"}


async def test_trailers_of_a_request_reach_the_backend(serving):
    async with serving() as tier, tier.client() as client:
        with in_time("a request with trailers is answered"):
            number = await client.ask(head=POST, body=b"hello", ends=False)
            client.h2.send_headers(number, [(b"grpc-timeout", b"1S")], end_stream=True)
            await client.flush()
            answer = await client.answer(number)
        assert answer.body == b"hello"
        assert tier.requests[0].trailers == [(b"grpc-timeout", b"1S")]


async def test_head_is_answered_without_a_body(serving):
    async with (
        serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as tier,
        tier.client() as client,
    ):
        with in_time("HEAD is answered"):
            answer = await client.get(head=HEAD)
        assert (answer.status, answer.get(b"content-length"), answer.body) == (200, b"5", b"")


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_that_have_no_body(serving, status):
    async with serving(saying(b"HTTP/1.1 %d X\r\n\r\n" % status)) as tier, tier.client() as client:
        with in_time("an answer without a body comes"):
            answer = await client.get()
        assert (answer.status, answer.body) == (status, b"")


async def test_interim_answers_come_before(serving):
    answering = saying(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    async with serving(answering) as tier, tier.client() as client:
        with in_time("two heads come"):
            answer = await client.get()
        assert (answer.interim, answer.status, answer.body) == ([103], 200, b"ok")


async def test_an_answer_that_breaks_off_is_reset(serving):
    async def answer(asked, stream):
        del asked
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await stream.aclose()

    async with serving(answer) as tier, tier.client() as client:
        with in_time("half an answer is reset"):
            answer = await client.get()
        assert answer.reset == 2
        assert not answer.is_over


async def test_an_early_answer_ends_the_request(serving):
    """RFC 9113, section 8.1: the whole answer, then RST_STREAM with NO_ERROR."""
    http = Http(max_body_bytes=1000)
    async with serving(http=http) as tier, tier.client() as client:
        with in_time("a body that is too large is refused"):
            number = await client.ask(head=POST, body=b"x" * 5000, ends=False)
            await client.until(lambda: client.answers[number].reset is not None)
            answer = client.answers[number]
            assert (answer.status, answer.is_over, answer.reset) == (413, True, 0)
            assert (await client.get()).status == 200
        assert (await tier.drops())["body_too_large"] == 1


async def test_a_client_that_resets_is_not_answered_and_others_are(serving):
    asked_first, wait = trio.Event(), trio.Event()

    async def answer(asked, stream):
        if asked.target == b"/never":
            asked_first.set()
            await wait.wait()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with serving(answer) as tier, tier.client() as client:
        with in_time("a stream is reset, another one is served"):
            number = await client.ask(head=(*GET[:3], (b":path", b"/never")))
            await asked_first.wait()
            client.h2.reset_stream(number, 8)
            assert (await client.get()).status == 200
            assert (await tier.drops())["client_gone"] == 1


async def test_too_large_a_head_is_told_so(serving):
    async with serving(http=Http(max_header_bytes=2048)) as tier, tier.client() as client:
        with in_time("431 comes, and the connection goes on"):
            assert (await client.get((b"x", b"y" * 2500))).status == 431
            assert (await client.get()).status == 200
        assert (await tier.drops())["head_too_large"] == 1


async def test_too_many_fields_are_told_so(serving):
    async with serving(http=Http(max_headers=10)) as tier, tier.client() as client:
        with in_time("431 comes"):
            assert (await client.get(*[(b"x", b"y")] * 20)).status == 431


async def test_no_route_is_404(serving):
    async with serving(http=Http(hosts=("other.example",))) as tier, tier.client() as client:
        with in_time("404 comes"):
            answer = await client.get()
        assert answer.status == 404
        assert answer.body.startswith(b"404 Not Found\nrequest ")


async def test_what_we_settle(serving):
    async with serving(http=Http(max_header_bytes=4096, max_headers=10)) as tier, tier.client() as client:
        assert client.settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 100
        assert client.settings[SettingCodes.INITIAL_WINDOW_SIZE] == 262144
        assert client.settings[SettingCodes.MAX_HEADER_LIST_SIZE] == 4096 + 320
        assert not client.settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL)


async def test_a_thousand_requests_on_one_connection(serving):
    async with serving() as tier, tier.client() as client:
        with in_time("a thousand requests are answered", times=3):
            for _ in range(20):
                numbers = [await client.ask(head=POST, body=b"%d" % at) for at in range(50)]
                assert [(await client.answer(number)).body for number in numbers] == [
                    b"%d" % at for at in range(50)
                ]
        assert (await tier.running.stats_of(tier.service)).connections_opened == 1
