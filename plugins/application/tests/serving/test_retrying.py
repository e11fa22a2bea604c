"""Another backend is asked where that is safe and useful, and a request is never sent twice that may not be."""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Balance, Endpoint, Http, Retry, RetryOn
from marchproxy_core.testing import until
from plugins.application.tests.http_rig import GET, OK, answering

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
EVERYTHING = Retry(most=3, on=frozenset(RetryOn))


@pytest.fixture
def nobody():
    """A backend that refuses: its port is bound, and nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield Backend(endpoint=Endpoint.parse(f"127.0.0.1:{sock.getsockname()[1]}"))


def resetting(said=b""):
    """Read a request, say this, and reset."""

    async def serve(peer, requests):
        requests.append(await peer.request())
        if said:
            await peer.send(said)
        peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    return serve


async def closing(peer, requests):
    """Read a request, and close without an answer."""
    requests.append(await peer.request())


async def silent(peer, requests):
    """Read a request, and never answer."""
    requests.append(await peer.request())
    await trio.sleep_forever()


async def test_a_backend_that_refuses_is_passed_over(serving, origin, nobody, log_events):
    async with origin() as a, serving(nobody, a) as site:
        client = await site.client()
        for _ in range(4):
            assert (await client.ask(POST)).status == 200
        assert len(a.requests) == 4
        assert (await site.stats()).retries > 0
    (first, *_) = [one for one in log_events("request.answered") if "attempts" in one]
    assert first["attempts"][0]["backend"] == str(nobody.endpoint)
    assert first["attempts"][0]["error"] == "Connection refused"
    assert first["backend"] == str(a.backend.endpoint)


async def test_where_nobody_is_left_the_answer_is_502(serving, nobody, log_events):
    async with serving(nobody) as site:
        client = await site.client()
        answer = await client.ask()
        assert (answer.status, answer[b"connection"]) == (502, None)
        assert (await client.ask()).status in (502, 503)  # kept, though its request failed
        assert (await site.stats()).drops["backend_refused"] >= 1
    first = log_events("request.answered")[0]
    assert (first["status"], first["origin"], first["reason"]) == (502, "proxy", "backend_refused")
    assert first["id"].encode() == answer[b"x-request-id"]


@pytest.mark.parametrize("broken", [closing, resetting()], ids=["closes", "resets"])
async def test_what_is_idempotent_is_asked_of_another_one(serving, origin, broken):
    async with origin(broken) as bad, origin() as good, serving(bad, good) as site:
        client = await site.client()
        for _ in range(4):
            assert (await client.ask()).body == b"ok"
        assert len(bad.requests) >= 1
        await site.counts("retries", len(bad.requests))


@pytest.mark.parametrize("broken", [closing, resetting()], ids=["closes", "resets"])
async def test_a_post_is_never_sent_twice(serving, origin, broken):
    async with origin(broken) as bad, serving(bad, http=Http(retry=EVERYTHING)) as site:
        client = await site.client()
        answer = await client.ask(POST)
        assert answer.status == 502
        assert len(bad.requests) == 1
        await site.counts("drops.backend_reset", 1)
        await site.counts("retries", 0)


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
async def test_a_kept_connection_that_died_unseen_is_replaced_where_that_is_safe(serving, origin, request_):
    """The backend closes when it reads the second request, as one that timed out just now does."""

    async def serve(peer, requests):
        requests.append(await peer.request())
        await peer.send(OK)
        await peer.more()

    async with origin(serve) as a, serving(a) as site:
        client = await site.client()
        assert (await client.ask(GET)).status == 200
        assert (await client.ask(request_)).status == (200 if request_ is GET else 502)
        assert len(a.requests) == (2 if request_ is GET else 1)


async def test_the_budget_ends_retries(serving, origin):
    async with origin(closing) as a, origin(closing) as b:
        http = Http(retry=Retry(most=1, budget=0.0))
        async with serving(a, b, http=http) as site:
            client = await site.client()
            assert (await client.ask()).status == 502
            assert len(a.requests) + len(b.requests) == 1
            await site.counts("retries", 0)


async def test_no_more_attempts_than_asked_for(serving, origin):
    async with origin(closing) as a, serving(a, http=Http(retry=Retry(most=2, budget=1.0))) as site:
        client = await site.client()
        assert (await client.ask()).status == 502
        assert len(a.requests) == 3


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_statuses_that_another_backend_may_do_better_than(serving, origin, status):
    bad = answering(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status)
    http = Http(retry=Retry(on=frozenset({RetryOn(str(status))}), budget=1.0))
    async with origin(bad) as a, origin() as b, serving(a, b, http=http) as site:
        client = await site.client()
        assert [(await client.ask()).status for _ in range(4)] == [200] * 4
        assert {(await client.ask(POST)).status for _ in range(4)} == {200, status}


async def test_by_itself_a_status_is_the_backends_word(serving, origin):
    async with origin(answering(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")) as a, serving(a) as site:
        answer = await (await site.client()).ask()
        assert (answer.status, answer.body) == (503, b"no")
        await site.counts("retries", 0)


async def test_a_reset_within_the_answer_resets_the_client(serving, origin, log_events):
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"

    async def serve(peer, requests):
        requests.append(await peer.request())
        await peer.send(begun)

    async with origin(serve) as a, serving(a, http=Http(retry=EVERYTHING)) as site:
        client = await site.client()
        await client.send(GET)
        assert (await client.head()).status == 200
        with pytest.raises(trio.BrokenResourceError):
            await client.rest()
        assert len(a.requests) == 1
        await site.counts("drops.answer_cut", 1)
    (event,) = log_events("request.answered")
    assert (event["status"], event["reason"]) == (200, "answer_cut")


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + bytes([97]) * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    ids=["no status line", "two lengths", "length and coding", "too long", "upgrade unasked"],
)
async def test_an_answer_that_is_none_is_502_and_not_asked_for_again(serving, origin, answer):
    async with origin(answering(answer)) as a, serving(a, http=Http(retry=EVERYTHING)) as site:
        client = await site.client()
        assert (await client.ask()).status == 502
        assert len(a.requests) == 1
        await site.counts("drops.bad_answer", 1)


async def test_a_try_that_takes_too_long_is_given_to_another(serving, origin):
    retry = Retry(on=frozenset({RetryOn.TIMEOUT}), try_timeout_s=0.3, budget=1.0)
    async with origin(silent) as a, origin() as b, serving(a, b, http=Http(retry=retry)) as site:
        client = await site.client()
        for _ in range(2):
            assert (await client.ask()).status == 200
        assert len(a.requests) >= 1
        await site.counts("retries", len(a.requests))


async def test_a_request_that_takes_too_long_is_504(serving, origin, log_events):
    async with origin(silent) as a, serving(a, http=Http(request_timeout_s=0.3)) as site:
        client = await site.client()
        assert (await client.ask()).status == 504
        assert (await client.ask()).status == 504
        await site.counts("drops.request_timeout", 2)
    assert [one["reason"] for one in log_events("request.answered")] == ["request_timeout"] * 2


async def test_a_backend_that_falls_silent_is_504_and_within_its_answer_a_reset(serving, origin):
    settings = Settings(worker_threads=1, read_timeout=0.3)

    async def half(peer, requests):
        requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await trio.sleep_forever()

    async with origin(silent) as a, serving(a, settings=settings) as site:
        assert (await (await site.client()).ask()).status == 504
        await site.counts("drops.read_timeout", 1)
    async with origin(half) as a, serving(a, settings=settings) as site:
        client = await site.client()
        await client.send(GET)
        await client.head()
        with pytest.raises(trio.BrokenResourceError):
            await client.rest()
        await site.counts("drops.read_timeout", 1)


async def test_a_backend_whose_queue_is_full_is_timed_out_and_another_asked(serving, origin):
    settings = Settings(worker_threads=1, connect_timeout=0.3)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(2)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            hole = Backend(endpoint=Endpoint.parse(f"127.0.0.1:{full.getsockname()[1]}"))
            async with origin() as a, serving(hole, a, settings=settings) as site:
                client = await site.client()
                for _ in range(2):
                    assert (await client.ask(POST)).status == 200
            async with serving(hole, settings=settings) as site:
                assert (await (await site.client()).ask()).status == 504
        finally:
            for filler in fillers:
                filler.close()


async def test_least_connections_counts_requests_and_not_kept_connections(serving, origin):
    async with origin() as a, origin() as b, serving(a, b, balance=Balance.LEAST_CONNECTIONS) as site:
        client = await site.client()
        for _ in range(4):
            await client.ask()

        async def none_is_counted():
            # An answer is sent before its request is counted as over.
            return set((await site.stats()).backend_active.values()) <= {0}

        await until(none_is_counted)
