"""Backends for tests: they say their name first, then echo, and show what they saw."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from marchproxy_core.services import Backend, Endpoint, Protocol

if TYPE_CHECKING:
    from marchproxy_core.testing.wire import Wire

_CHUNK_BYTES = 65536

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@attrs.define(eq=False)
class Server:
    """A running backend."""

    name: bytes
    endpoint: Endpoint
    received: dict[object, bytes] = attrs.field(factory=dict)
    """UDP: what came from each peer, concatenated."""
    opened: int = 0
    """TCP: how many connections it accepted."""

    @property
    def backend(self) -> Backend:
        """How a service names it."""
        return Backend(endpoint=self.endpoint)


@asynccontextmanager
async def tcp_server(
    wire: Wire, version: int = 4, *, name: bytes = b"", serve: Serve | None = None
) -> AsyncIterator[Server]:
    """Run a TCP backend: sends ``name``, then echoes until the end of the stream; or does as ``serve`` does."""
    listener = trio.SocketListener(await wire.bind_server(Protocol.TCP, version))
    host, port = listener.socket.getsockname()[:2]
    server = Server(name, _endpoint(host, port))

    async def answer(stream: trio.SocketStream) -> None:
        server.opened += 1
        async with stream:
            if serve is not None:
                await serve(stream)
                return
            try:
                if name:
                    await stream.send_all(name)
                while data := await stream.receive_some(_CHUNK_BYTES):
                    await stream.send_all(data)
                await stream.send_eof()
            except trio.BrokenResourceError:
                return  # the client may end as it likes

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, answer, [listener])
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def udp_server(wire: Wire, version: int = 4, *, name: bytes = b"") -> AsyncIterator[Server]:
    """Run a UDP backend: answers each datagram with ``name`` and the datagram."""
    sock = await wire.bind_server(Protocol.UDP, version)
    host, port = sock.getsockname()[:2]
    server = Server(name, _endpoint(host, port))

    async def answer() -> None:
        while True:
            try:
                data, peer = await sock.recvfrom(_CHUNK_BYTES)
                server.received[peer] = server.received.get(peer, b"") + data
                await sock.sendto(name + data, peer)
            except ConnectionError:
                continue  # an earlier answer came too late for its receiver

    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            try:
                yield server
            finally:
                nursery.cancel_scope.cancel()


async def receive_exactly(stream: trio.SocketStream, count: int) -> bytes:
    """Receive ``count`` bytes, or less when the stream ends."""
    data = bytearray()
    while len(data) < count and (some := await stream.receive_some(count - len(data))):
        data += some
    return bytes(data)


async def receive_all(stream: trio.SocketStream) -> bytes:
    """Receive until the stream ends."""
    data = bytearray()
    while some := await stream.receive_some(_CHUNK_BYTES):
        data += some
    return bytes(data)


def _endpoint(host: str, port: int) -> Endpoint:
    return Endpoint.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
