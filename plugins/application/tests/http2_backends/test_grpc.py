"""gRPC through the proxy: Google's own client, and its own server behind us."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import attrs
import grpc
import pytest
import trio

from marchproxy_core.services import Backend, Endpoint
from plugins.application.tests.http2_backends.rig import http2, stands_still

LARGE_BYTES = 24 << 20
LONGEST_S = 30.0
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Service(grpc.GenericRpcHandler):
    """Bytes in, bytes out; one method for each kind of call."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.sent = 0

    def service(self, details):
        return {
            "/test/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/test/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/test/Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "/test/Down": grpc.unary_stream_rpc_method_handler(self.down),
            "/test/Endless": grpc.unary_stream_rpc_method_handler(self.endless),
            "/test/Up": grpc.stream_unary_rpc_method_handler(self.up),
            "/test/Both": grpc.stream_stream_rpc_method_handler(self.both),
        }.get(details.method)

    def unary(self, request, context):
        context.set_trailing_metadata((("x-behind", "here"),))
        context.send_initial_metadata((("x-before", dict(context.invocation_metadata()).get("x-asked", "")),))
        return request

    def fail(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so: ärgerlich")

    def wait(self, request, context):
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(LONGEST_S)
        return b""

    def down(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number

    def endless(self, request, context):
        context.add_callback(self.cancelled.set)
        while not self.cancelled.is_set():
            self.sent += 1 << 20
            yield bytes(1 << 20)

    def up(self, requests, context):
        return b"%d" % sum(len(request) for request in requests)

    def both(self, requests, context):
        for request in requests:
            yield request[::-1]


@contextmanager
def grpc_backend():
    service = Service()
    server = grpc.server(ThreadPoolExecutor(32), handlers=[service], options=_UNLIMITED)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield service, Backend(endpoint=Endpoint.parse(f"127.0.0.1:{port}"))
    finally:
        service.cancelled.set()
        server.stop(None).wait(LONGEST_S)


@attrs.frozen
class Calls:
    """A channel; calls block, so they are made in threads."""

    channel: grpc.Channel

    async def do(self, work, *args):
        return await trio.to_thread.run_sync(lambda: work(*args), abandon_on_cancel=True)

    def unary(self, method, request=b"", **options):
        options = {"timeout": LONGEST_S, **options}
        return self.channel.unary_unary(f"/test/{method}").with_call(request, **options)

    def down(self, method, request=b""):
        return self.channel.unary_stream(f"/test/{method}")(request, timeout=LONGEST_S)

    def up(self, method, requests):
        return self.channel.stream_unary(f"/test/{method}")(iter(requests), timeout=LONGEST_S)

    def both(self, method, requests):
        return self.channel.stream_stream(f"/test/{method}")(requests, timeout=LONGEST_S)


@pytest.fixture
async def grpc_calls(serving):
    """A gRPC server behind the tier, and a client in front of it."""
    with grpc_backend() as (service, backend):
        async with serving(backend, http=http2()) as site:
            with grpc.insecure_channel(str(site.service.listen[0]), options=_UNLIMITED) as channel:
                yield Calls(channel), service, site


async def test_a_unary_call_with_metadata_before_and_behind(grpc_calls):
    calls, _, site = grpc_calls
    body, call = await calls.do(lambda: calls.unary("Unary", b"hello", metadata=(("x-asked", "yes"),)))
    assert body == b"hello"
    assert call.code() is grpc.StatusCode.OK
    assert dict(call.initial_metadata())["x-before"] == "yes"
    assert dict(call.trailing_metadata())["x-behind"] == "here"
    await site.counts("drops.bad_answer", 0)


async def test_an_error_reaches_the_client_with_its_words(grpc_calls):
    calls, _, _ = grpc_calls
    with pytest.raises(grpc.RpcError) as caught:
        await calls.do(calls.unary, "Fail")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "not so: ärgerlich"


async def test_a_method_that_is_not_there(grpc_calls):
    calls, _, _ = grpc_calls
    with pytest.raises(grpc.RpcError) as caught:
        await calls.do(calls.unary, "Nothing")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_server_streams(grpc_calls):
    calls, _, _ = grpc_calls
    got = await calls.do(lambda: list(calls.down("Down", b"1000")))
    assert got == [b"%d" % number for number in range(1000)]


async def test_a_client_streams(grpc_calls):
    calls, _, _ = grpc_calls
    assert await calls.do(lambda: calls.up("Up", [bytes(1000)] * 1000)) == b"1000000"


async def test_both_stream_in_turn(grpc_calls):
    """Each message is answered before the next one is sent: nothing may wait on its way."""
    calls, _, _ = grpc_calls

    def talk():
        turn = threading.Semaphore(1)

        def questions():
            for number in range(200):
                assert turn.acquire(timeout=LONGEST_S)
                yield b"question %d" % number

        answers = []
        for answer in calls.both("Both", questions()):
            answers.append(answer)
            turn.release()
        return answers

    assert await calls.do(talk) == [(b"question %d" % number)[::-1] for number in range(200)]


async def test_large_messages_both_ways(grpc_calls):
    calls, _, _ = grpc_calls
    large = bytes(range(256)) * (LARGE_BYTES // 256)
    body, _ = await calls.do(calls.unary, "Unary", large)
    assert body == large


async def test_many_calls_share_one_connection_to_the_backend(grpc_calls):
    calls, _, site = grpc_calls
    await calls.do(calls.unary, "Unary", b"first")

    def ask():
        futures = [
            calls.channel.unary_unary("/test/Unary").future(b"%d" % number, timeout=LONGEST_S)
            for number in range(200)
        ]
        return [future.result() for future in futures]

    assert await calls.do(ask) == [b"%d" % number for number in range(200)]
    await site.counts("reused", 200)


async def test_a_deadline_cancels_the_call_at_the_backend(grpc_calls):
    calls, service, _ = grpc_calls
    with pytest.raises(grpc.RpcError) as caught:
        await calls.do(lambda: calls.unary("Wait", timeout=0.3))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await calls.do(service.cancelled.wait, LONGEST_S)


async def test_a_client_that_does_not_read_holds_the_server(grpc_calls):
    calls, service, _ = grpc_calls
    call = calls.down("Endless")
    await calls.do(next, call)
    await stands_still(lambda: service.sent)
    # What the kernel's buffers and four windows hold, and one message in the making.
    assert service.sent < 32 << 20
    await calls.do(next, call)
    call.cancel()
    assert await calls.do(service.cancelled.wait, LONGEST_S)


async def test_a_backend_that_is_not_there_is_unavailable(serving):
    with grpc_backend() as (_, backend):
        pass
    async with serving(backend, http=http2()) as site:
        with grpc.insecure_channel(str(site.service.listen[0])) as channel:
            calls = Calls(channel)
            with pytest.raises(grpc.RpcError) as caught:
                await calls.do(calls.unary, "Unary")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
