"""Laws of traffic: what a client and a server see of a tier in between, and what it counts."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING

import trio

from marchproxy_core.services import Backend, Protocol, Service
from marchproxy_core.testing.laws import patience
from marchproxy_core.testing.servers import receive_all, receive_exactly, tcp_server, udp_server

if TYPE_CHECKING:
    from marchproxy_core.services import Endpoint
    from marchproxy_core.testing.servers import Server
    from marchproxy_core.testing.subject import Subject
    from marchproxy_core.testing.wire import Wire

_BULK_BYTES = 4 << 20
_UNREAD_BYTES = 128 << 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_UDP_TRIES = 5


def service_for(
    wire: Wire, *backends: Backend, version: int = 4, name: str = "web", protocol: Protocol = Protocol.TCP
) -> Service:
    """Describe a service on a free port of the wire."""
    return Service(
        name=name, protocol=protocol, listen=(wire.free_port(protocol, version),), backends=backends
    )


async def echo_once(wire: Wire, endpoint: Endpoint, message: bytes) -> bytes:
    """Connect, send, end, and return all that came back."""
    with patience.in_time("a client is served to the end of its stream"):
        async with await wire.connect(endpoint) as client:
            await client.send_all(message)
            await client.send_eof()
            return await receive_all(client)


async def tcp_flows_as_soon_as_it_started(subject: Subject, wire: Wire) -> None:
    """Once ``started()`` was called a client is served, in each IP version, and between them."""
    async with AsyncExitStack() as servers:
        services = []
        for back in wire.versions:
            server = await servers.enter_async_context(tcp_server(wire, back, name=b"hello "))
            services += [
                service_for(wire, server.backend, version=front, name=f"IPv{front} to IPv{back}")
                for front in wire.versions
            ]
        accepted = subject.accepted(*services)
        async with subject.running(*accepted):
            for service in accepted:
                got = await echo_once(wire, service.listen[0], b"world")
                assert got == b"hello world", f"{service.name}: sent 'world', got {got!r}"


async def half_close_passes_through(subject: Subject, wire: Wire) -> None:
    """The client ends its direction, the server sees that, and still answers."""

    async def answer_after_the_end(stream: trio.SocketStream) -> None:
        request = await receive_all(stream)
        await stream.send_all(b"got " + request)

    async with tcp_server(wire, serve=answer_after_the_end) as server:
        service = service_for(wire, server.backend)
        async with subject.running(service):
            got = await echo_once(wire, service.listen[0], b"all of it")
            assert got == b"got all of it", f"after the client's end of stream it got {got!r}"


async def reset_passes_through(subject: Subject, wire: Wire) -> None:
    """A reset by either side reaches the other as a reset, never as an orderly end."""
    await _reset_by_client(subject, wire)
    await _reset_by_server(subject, wire)


async def _reset_by_client(subject: Subject, wire: Wire) -> None:
    seen: list[str] = []
    ended = trio.Event()

    async def watch(stream: trio.SocketStream) -> None:
        try:
            await receive_exactly(stream, 4)
            await stream.send_all(b"pong")
            seen.append("an orderly end" if not await stream.receive_some() else "more data")
        except trio.BrokenResourceError as error:
            seen.append(type(error.__cause__).__name__)
        ended.set()

    async with tcp_server(wire, serve=watch) as server:
        service = service_for(wire, server.backend)
        async with subject.running(service):
            async with await wire.connect(service.listen[0]) as client:
                with patience.in_time("a client is served before it resets"):
                    await client.send_all(b"ping")
                    await receive_exactly(client, 4)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            with trio.move_on_after(patience.PATIENCE_S):
                await ended.wait()
    assert seen == ["ConnectionResetError"], f"the client reset, the server saw {seen or 'nothing'}"


async def _reset_by_server(subject: Subject, wire: Wire) -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await receive_exactly(stream, 4)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    seen = "nothing"
    async with tcp_server(wire, serve=reset) as server:
        service = service_for(wire, server.backend)
        async with subject.running(service), await wire.connect(service.listen[0]) as client:
            await client.send_all(b"ping")
            with trio.move_on_after(patience.PATIENCE_S):
                try:
                    seen = f"{await client.receive_some()!r} in order"
                except trio.BrokenResourceError as error:
                    seen = type(error.__cause__).__name__
    assert seen == "ConnectionResetError", f"the server reset, the client saw {seen}"


async def bulk_arrives_exactly_in_both_directions(subject: Subject, wire: Wire) -> None:
    """Megabytes at once in both directions come through byte for byte."""
    payload = os.urandom(_BULK_BYTES)
    async with tcp_server(wire) as server:
        service = service_for(wire, server.backend)
        async with subject.running(service):
            with patience.in_time("all bytes come back", times=3):
                async with await wire.connect(service.listen[0]) as client, trio.open_nursery() as nursery:

                    async def send() -> None:
                        await client.send_all(payload)
                        await client.send_eof()

                    nursery.start_soon(send)
                    got = await receive_all(client)
    assert len(got) == len(payload), f"sent {len(payload)} bytes, got {len(got)} back"
    assert got == payload, "as many bytes came back, but not the same ones"


async def a_reader_that_stalls_stalls_the_sender(subject: Subject, wire: Wire) -> None:
    """With nobody reading, the sender is held back; once the reader reads, all of it arrives."""
    read_on = trio.Event()
    counts: list[int] = []

    async def read_late(stream: trio.SocketStream) -> None:
        await read_on.wait()
        counts.append(len(await receive_all(stream)))

    sent = 0
    chunk = bytes(1 << 20)
    async with tcp_server(wire, serve=read_late) as server:
        service = service_for(wire, server.backend)
        async with subject.running(service):
            client = await wire.connect(service.listen[0])
            async with client:
                while sent < _UNREAD_BYTES:
                    with trio.move_on_after(1.0) as late:
                        sent += await client.socket.send(chunk)
                    if late.cancelled_caught:
                        break
                else:
                    raise AssertionError(f"took {sent} bytes that nobody read: its buffers have no bound")
                read_on.set()
                await client.send_eof()
                with patience.in_time("the late reader gets all of it", times=3):
                    assert await receive_all(client) == b""
    assert counts == [sent], f"sent {sent} bytes, the late reader got {counts}"


async def udp_answers_each_client(subject: Subject, wire: Wire) -> None:
    """Datagrams of several clients reach the backend whole, and each client gets its own answers."""
    async with AsyncExitStack() as servers:
        backed: list[tuple[Service, Server]] = []
        for version in wire.versions:
            server = await servers.enter_async_context(udp_server(wire, version, name=b"echo "))
            name = f"IPv{version}"
            service = service_for(wire, server.backend, version=version, name=name, protocol=Protocol.UDP)
            backed.append((service, server))
        accepted = subject.accepted(*(service for service, _ in backed))
        async with subject.running(*accepted):
            for service, server in backed:
                if service in accepted:
                    await _ask_from_five_clients(wire, service, server)


async def _ask_from_five_clients(wire: Wire, service: Service, server: Server) -> None:
    with ExitStack() as opened:
        clients = [opened.enter_context(await wire.connect_udp(service.listen[0])) for _ in range(5)]
        for size in (1, 100, 1200):
            for number, client in enumerate(clients):
                message = bytes([number]) * size
                got = await ask_udp(client, message)
                assert got == b"echo " + message, (
                    f"{service.name}: client {number} got {got[:40]!r} of {len(got)} bytes"
                )
    assert len(server.received) == len(clients), (
        f"{service.name}: {len(clients)} clients came to the backend as {len(server.received)}"
    )


async def ask_udp(client: trio.socket.SocketType, message: bytes) -> bytes:
    """Send a datagram and return the answer; UDP may lose one, so it is sent again a few times."""
    for _ in range(_UDP_TRIES):
        with trio.move_on_after(patience.PATIENCE_S / _UDP_TRIES):
            try:
                await client.send(message)
                return await client.recv(65536)
            except ConnectionRefusedError:
                await (
                    trio.sleep_forever()
                )  # ICMP said that nobody listens: not an answer, so wait for the next try
    raise AssertionError(f"no answer to a datagram of {len(message)} bytes, sent {_UDP_TRIES} times")


LAWS = (
    tcp_flows_as_soon_as_it_started,
    half_close_passes_through,
    reset_passes_through,
    bulk_arrives_exactly_in_both_directions,
    a_reader_that_stalls_stalls_the_sender,
    udp_answers_each_client,
)
