"""Laws of the end: cancelled at any moment, a tier gives everything back and leaves no client hanging."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import trio

from marchproxy_core.model import Carries
from marchproxy_core.services import Protocol
from marchproxy_core.testing.census import ResourceCensus, assert_nothing_leaked
from marchproxy_core.testing.laws import patience
from marchproxy_core.testing.laws.changes import until_served
from marchproxy_core.testing.laws.traffic import ask_udp, service_for
from marchproxy_core.testing.servers import receive_exactly, tcp_server, udp_server
from marchproxy_core.testing.subject import NotApplicable

if TYPE_CHECKING:
    from marchproxy_core.services import Service
    from marchproxy_core.testing.subject import Subject
    from marchproxy_core.testing.wire import Wire

_DETACH_S = 20.0


async def cancelled_with_connections_open_it_gives_everything_back(subject: Subject, wire: Wire) -> None:
    """Cancelled in the midst of traffic, the tier ends in time, its clients learn of it, nothing stays behind."""
    await _run_shortly(subject, wire)
    before = ResourceCensus.take()
    # The server ends too: who carries packets cannot tell it that the flow is over.
    async with tcp_server(wire, name=b"hi") as server, AsyncExitStack() as opened:
        service = service_for(wire, server.backend)
        clients: list[trio.SocketStream] = []
        async with subject.running(service):
            for _ in range(3):
                client = await opened.enter_async_context(await wire.connect(service.listen[0]))
                clients.append(client)
                with patience.in_time("a client is served"):
                    await receive_exactly(client, 2)
            ended_at = trio.current_time() + _DETACH_S
        assert trio.current_time() < ended_at, f"cancelled, it took longer than {_DETACH_S:g} s to end"
        for client in clients:
            await _assert_ended(client, asks=subject.report.carries is Carries.PACKETS)
    await assert_nothing_leaked(before)


async def cancelled_with_flows_open_it_gives_everything_back(subject: Subject, wire: Wire) -> None:
    """The same for UDP."""
    async with udp_server(wire) as server:
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        await _ask_shortly(subject, wire, service)
        before = ResourceCensus.take()
        await _ask_shortly(subject, wire, service)
        await assert_nothing_leaked(before)


async def an_empty_table_and_a_second_life_work(subject: Subject, wire: Wire) -> None:
    """With nothing to carry the tier runs, takes a service later, and once ended can start over."""
    async with tcp_server(wire, name=b"hi") as server:
        service = service_for(wire, server.backend)
        verdict = subject.classify(service)
        if not verdict.accept:
            raise NotApplicable(f"the tier declines a TCP service: {verdict.reason}")
        for _ in range(2):
            async with subject.running() as running:
                running.put(service)
                if subject.report.carries is Carries.PACKETS:
                    await until_served(wire, service)
                with patience.in_time("a client is served"):
                    async with await wire.connect(service.listen[0]) as client:
                        assert await receive_exactly(client, 2) == b"hi"


LAWS = (
    cancelled_with_connections_open_it_gives_everything_back,
    cancelled_with_flows_open_it_gives_everything_back,
    an_empty_table_and_a_second_life_work,
)


async def _run_shortly(subject: Subject, wire: Wire) -> None:
    async with tcp_server(wire, name=b"hi") as server:
        service = service_for(wire, server.backend)
        async with subject.running(service), await wire.connect(service.listen[0]) as client:
            with patience.in_time("a client is served"):
                await receive_exactly(client, 2)


async def _ask_shortly(subject: Subject, wire: Wire, service: Service) -> None:
    async with subject.running(service):
        with await wire.connect_udp(service.listen[0]) as client:
            assert await ask_udp(client, b"ping") == b"ping"


async def _assert_ended(client: trio.SocketStream, *, asks: bool) -> None:
    """See that the client learns of the end: by itself, or, where nobody ends its connection for it, once it sends."""
    with trio.move_on_after(patience.PATIENCE_S):
        with suppress(trio.BrokenResourceError):  # a reset says it too
            if asks:
                await client.send_all(b"?")
            assert await client.receive_some() == b""
        return
    raise AssertionError("the tier ended, and a client was left hanging")
