"""Backends of HTTP/2, made of h2 or by hand, and the service in front of them."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import h2.config
import h2.connection
import h2.events
import trio
from h2.settings import SettingCodes
from h2.settings import Settings as H2Settings
from hyperframe.frame import HeadersFrame, SettingsFrame

from marchproxy_application.http2.frames import PREFACE
from marchproxy_core.services import Http, HttpVersion
from marchproxy_core.testing import open_loopback_wire, until
from marchproxy_core.testing.servers import Server, tcp_server
from plugins.application.tests.http2.rig import Client as Http2Client
from plugins.application.tests.http2.rig import Raw

CHUNK_BYTES = 65536
LONGEST_S = 20.0


def http2(**wishes: object) -> Http:
    """Return wishes of a service whose backends speak HTTP/2."""
    return Http(backend_protocol=HttpVersion.HTTP2, **wishes)


@attrs.define(eq=False)
class Asked:
    """A request as the backend got it."""

    connection: Connection
    number: int
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = attrs.Factory(list)
    ended: trio.Event = attrs.Factory(trio.Event)
    reset: int | None = None
    gone: trio.Event = attrs.Factory(trio.Event)
    """Set when the proxy has reset the stream."""

    def get(self, name: bytes) -> bytes | None:
        return next((value for each, value in self.fields if each == name), None)

    @property
    def path(self) -> bytes | None:
        return self.get(b":path")

    async def head(self, *fields: tuple[bytes, bytes], status: bytes = b"200", ends: bool = False) -> None:
        self.connection.h2.send_headers(self.number, [(b":status", status), *fields], end_stream=ends)
        await self.connection.flush()

    async def send(self, data: bytes, *, ends: bool = False) -> None:
        """Send all of it, as the proxy opens its windows."""
        own = self.connection
        at = 0
        while at < len(data):
            room = min(own.h2.local_flow_control_window(self.number), own.h2.max_outbound_frame_size)
            if room <= 0:
                own.opened = trio.Event()
                await own.opened.wait()
                continue
            own.h2.send_data(self.number, data[at : at + room])
            at += room
            await own.flush()
        if ends:
            own.h2.end_stream(self.number)
            await own.flush()

    async def trail(self, *fields: tuple[bytes, bytes]) -> None:
        self.connection.h2.send_headers(self.number, list(fields), end_stream=True)
        await self.connection.flush()

    async def cancel(self, code: int) -> None:
        self.connection.h2.reset_stream(self.number, code)
        await self.connection.flush()


Answer = Callable[[Asked], Awaitable[None]]


@attrs.define(eq=False)
class Connection:
    """A connection of the proxy, as a backend has it."""

    stream: trio.abc.Stream
    h2: h2.connection.H2Connection
    reads: bool = True
    """Whether windows are opened as bodies come."""
    asked: dict[int, Asked] = attrs.Factory(dict)
    opened: trio.Event = attrs.Factory(trio.Event)
    lock: trio.Lock = attrs.Factory(trio.Lock)

    async def flush(self) -> None:
        async with self.lock:
            if data := self.h2.data_to_send():
                await self.stream.send_all(data)

    async def say(self, frames: bytes) -> None:
        async with self.lock:
            await self.stream.send_all(frames)


@attrs.define(eq=False)
class Origin:
    """A backend that runs, and what came to it."""

    server: Server
    connections: list[Connection] = attrs.Factory(list)
    requests: list[Asked] = attrs.Factory(list)

    @property
    def backend(self):
        return self.server.backend


async def echo(asked: Asked) -> None:
    """Answer with the request's own body."""
    await asked.ended.wait()
    await asked.head((b"content-length", b"%d" % len(asked.body)))
    await asked.send(asked.body, ends=True)


@asynccontextmanager
async def http2_origin(
    answer: Answer = echo,
    *,
    reads: bool = True,
    settings: dict[int, int] | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Origin]:
    """Run a backend made of h2.

    Args:
        answer: What it does with each request, each in a task of its own.
        reads: Whether it opens its windows as bodies come.
        settings: What its SETTINGS say.
        context: Of its TLS; None: plain text.
    """
    async with open_loopback_wire() as wire, trio.open_nursery() as nursery:
        made: list[Origin] = []

        async def serve(plain: trio.SocketStream) -> None:
            stream = plain if context is None else trio.SSLStream(plain, context, server_side=True)
            connection = Connection(stream, _new_h2(settings or {}), reads)
            made[0].connections.append(connection)
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await _serve(made[0], connection, answer, nursery)

        async with tcp_server(wire, serve=serve) as server:
            made.append(Origin(server))
            try:
                yield made[0]
            finally:
                nursery.cancel_scope.cancel()


async def _serve(origin: Origin, connection: Connection, answer: Answer, nursery: trio.Nursery) -> None:
    connection.h2.initiate_connection()
    await connection.flush()

    async def run(asked: Asked) -> None:
        # The proxy may reset what is answered at any time; what a test wants of it, it asserts on its own side.
        with contextlib.suppress(
            trio.BrokenResourceError, trio.ClosedResourceError, h2.exceptions.StreamClosedError
        ):
            await answer(asked)

    while data := await connection.stream.receive_some(CHUNK_BYTES):
        for event in connection.h2.receive_data(data):
            asked = connection.asked.get(getattr(event, "stream_id", None))
            match event:
                case h2.events.RequestReceived():
                    asked = Asked(
                        connection, event.stream_id, [(bytes(n), bytes(v)) for n, v in event.headers]
                    )
                    connection.asked[asked.number] = asked
                    origin.requests.append(asked)
                    nursery.start_soon(run, asked)
                case h2.events.DataReceived():
                    asked.body += event.data
                    if connection.reads and event.flow_controlled_length:
                        connection.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.TrailersReceived():
                    asked.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
                case h2.events.StreamEnded():
                    asked.ended.set()
                case h2.events.StreamReset():
                    asked.reset = event.error_code
                    asked.gone.set()
                    connection.opened.set()
                case h2.events.WindowUpdated():
                    connection.opened.set()
        await connection.flush()


def _new_h2(settings: dict[int, int]) -> h2.connection.H2Connection:
    made = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    made.local_settings = H2Settings(
        client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: 100, **settings}
    )
    return made


class RawBackend(Raw):
    """Frames by hand, from a backend's side."""

    async def begin(self, settings: dict[int, int] | None = None) -> None:
        """Read the preface, and say SETTINGS."""
        while len(self.buffer) < len(PREFACE):
            self.buffer += await self.stream.receive_some(CHUNK_BYTES)
        assert self.buffer.startswith(PREFACE)
        self.buffer = self.buffer[len(PREFACE) :]
        await self.send(SettingsFrame(0, settings=settings or {}))

    async def request(self) -> int:
        """Return the number of the next request's stream."""
        return (await self.until(HeadersFrame)).stream_id

    def answer(
        self, number: int, *fields, status: bytes = b"200", ends: bool = True, **options
    ) -> HeadersFrame:
        return self.head(number, [(b":status", status), *fields], ends=ends, **options)


@asynccontextmanager
async def raw_origin(
    serve: Callable[[RawBackend], Awaitable[None]], *, begins: bool = True
) -> AsyncIterator[Server]:
    """Run a backend whose frames are made by hand.

    Args:
        serve: What it does with each connection.
        begins: Whether preface and SETTINGS are exchanged before that.
    """

    async def handle(stream: trio.SocketStream) -> None:
        raw = RawBackend(stream)
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if begins:
                await raw.begin()
            await serve(raw)

    async with open_loopback_wire() as wire, tcp_server(wire, serve=handle) as server:
        yield server


@asynccontextmanager
async def client_of(site) -> AsyncIterator[Http2Client]:
    """Connect to a service in HTTP/2."""
    async with await site.wire.connect(site.service.listen[0]) as stream:
        client = Http2Client(stream)
        with trio.fail_after(LONGEST_S):
            await client.begin()
            yield client


async def stands_still(count: Callable[[], int]) -> None:
    """Wait until a count has begun, and has been the same for a while."""
    seen = [-1, 0]

    def same() -> bool:
        now = count()
        seen[:] = [now, seen[1] + 1 if now == seen[0] else 0]
        return now > 0 and seen[1] >= 15

    await until(same)
