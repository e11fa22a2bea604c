"""Laws of flushing: what a flushed backend has ends at once, and nothing else does."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import trio

from marchproxy_core.model import Carries
from marchproxy_core.services import Protocol
from marchproxy_core.testing.laws import patience
from marchproxy_core.testing.laws.changes import until_all_go_to
from marchproxy_core.testing.laws.traffic import ask_udp, service_for
from marchproxy_core.testing.servers import receive_exactly, tcp_server, udp_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from marchproxy_core.services import Service
    from marchproxy_core.testing.servers import Server
    from marchproxy_core.testing.subject import Subject
    from marchproxy_core.testing.wire import Wire

_ROUND_S = 0.3
"""How long an end listens before it looks, or sends, again: the flow may have ended since."""
_PING = b"still there?"


async def a_flushed_backend_loses_its_connections(subject: Subject, wire: Wire) -> None:
    """They are reset at both ends, those to another backend go on, and new clients go there until it is back."""
    asks = subject.report.carries is Carries.PACKETS
    accepted: list[trio.SocketStream] = []

    async def hold(stream: trio.SocketStream) -> None:
        accepted.append(stream)
        with suppress(
            trio.BrokenResourceError
        ):  # who comes while the flush is under way may be reset already
            await stream.send_all(b"a")
        await trio.sleep_forever()

    async with tcp_server(wire, serve=hold) as a, tcp_server(wire, name=b"b") as b:
        service = service_for(wire, a.backend, b.backend)
        async with subject.running(service) as running, AsyncExitStack() as opened:
            at_a = await opened.enter_async_context(_client_of(wire, service, b"a"))
            its_end = accepted[-1]
            at_b = await opened.enter_async_context(_client_of(wire, service, b"b"))
            running.put(flushed(service, a))
            await until_all_go_to(wire, service, b"b")
            await _assert_reset(at_a, "the client", asks=asks)
            await _assert_reset(its_end, "the backend", asks=asks)
            await _assert_echoes(at_b)
            running.put(service)
            async with _client_of(wire, service, b"a"):
                await _assert_echoes(at_b)


async def a_flushed_backends_udp_flows_move(subject: Subject, wire: Wire) -> None:
    """The next datagram of such a flow goes to another backend; who is there already keeps his flow."""
    async with udp_server(wire, name=b"a") as a, udp_server(wire, name=b"b") as b:
        service = service_for(wire, a.backend, b.backend, protocol=Protocol.UDP)
        async with subject.running(service) as running, AsyncExitStack() as opened:
            at_a = await opened.enter_async_context(_sender_to(wire, service, b"a"))
            at_b = await opened.enter_async_context(_sender_to(wire, service, b"b"))
            flows = len(b.received)
            running.put(flushed(service, a))

            async def has_moved() -> bool:
                return (await ask_udp(at_a, _PING)).startswith(b"b")

            await patience.until(has_moved, "that a flow leaves the backend that is flushed")
            assert await ask_udp(at_b, _PING) == b"b" + _PING
            assert len(b.received) == flows + 1, "a flow was moved whose backend is not flushed"


LAWS = (a_flushed_backend_loses_its_connections, a_flushed_backends_udp_flows_move)


def flushed(service: Service, server: Server) -> Service:
    """Return the service with one of its backends flushed, as the configuration gives it."""
    backends = (
        attrs.evolve(one, weight=0, flush=True) if one.endpoint == server.endpoint else one
        for one in service.backends
    )
    return attrs.evolve(service, backends=tuple(backends))


@asynccontextmanager
async def _client_of(wire: Wire, service: Service, name: bytes) -> AsyncIterator[trio.SocketStream]:
    """Hold a connection to the backend of that name; whose turn it is, is the tier's choice."""
    until_s = trio.current_time() + patience.PATIENCE_S
    while trio.current_time() < until_s:
        async with await wire.connect(service.listen[0]) as client:
            with patience.in_time("a client is served"):
                met = await receive_exactly(client, 1)
            if met == name:
                yield client
                return
    raise AssertionError(f"of many clients in a row none met backend {name.decode()}")


@asynccontextmanager
async def _sender_to(wire: Wire, service: Service, name: bytes) -> AsyncIterator[trio.socket.SocketType]:
    """Have a UDP socket whose flow is with the backend of that name."""
    until_s = trio.current_time() + patience.PATIENCE_S
    while trio.current_time() < until_s:
        with await wire.connect_udp(service.listen[0]) as sock:
            if (await ask_udp(sock, b"?")).startswith(name):
                yield sock
                return
    raise AssertionError(f"of many UDP clients in a row none met backend {name.decode()}")


async def _assert_reset(end: trio.SocketStream, who: str, *, asks: bool) -> None:
    """See that it is reset: by itself, or, where nobody can tell it, once it sends."""

    async def is_reset() -> bool:
        try:
            if asks:
                await end.send_all(_PING)
            with trio.move_on_after(_ROUND_S):
                assert await end.receive_some(), f"{who} of a flushed backend's connection saw an orderly end"
        except trio.BrokenResourceError:
            return True
        return False

    await patience.until(is_reset, f"that {who} of a flushed backend's connection is reset")


async def _assert_echoes(client: trio.SocketStream) -> None:
    got = b""
    with trio.move_on_after(patience.PATIENCE_S):
        try:
            await client.send_all(_PING)
            got = await receive_exactly(client, len(_PING))
        except trio.BrokenResourceError as error:
            got = repr(error.__cause__).encode()
    assert got == _PING, f"a connection to a backend that is not flushed was lost: {got!r}"
