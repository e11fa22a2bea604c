"""Clients and backends that speak HTTP/1.1 byte by byte, and the tier between them in real worker processes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from marchproxy_application import plugin
from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Http, Service
from marchproxy_core.testing import Subject, open_loopback_wire, until
from marchproxy_core.testing.laws.traffic import service_for
from marchproxy_core.testing.servers import Server, tcp_server

LONGEST_S = 10.0
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Ended(AssertionError):
    """A stream ended where more was awaited."""


@attrs.define
class Message:
    """A request or an answer, as it came."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = attrs.Factory(list)

    @classmethod
    def of(cls, head: bytes) -> Message:
        start, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        return cls(start, [_field(line) for line in lines])

    def __getitem__(self, name: bytes) -> bytes | None:
        return next((value for each, value in self.fields if each == name), None)

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def path(self) -> bytes:
        return self.start.split(b" ")[1]


@attrs.define(eq=False)
class Peer:
    """One end of a connection; every wait has an end."""

    stream: trio.SocketStream
    buffer: bytes = b""

    async def send(self, data: bytes) -> None:
        with trio.fail_after(LONGEST_S):
            await self.stream.send_all(data)

    async def more(self) -> bool:
        with trio.fail_after(LONGEST_S):
            data = await self.stream.receive_some(1 << 16)
        self.buffer += data
        return bool(data)

    async def until(self, mark: bytes) -> bytes:
        """Return what comes up to a mark, with it."""
        while mark not in self.buffer:
            if not await self.more():
                raise Ended(f"before {mark!r}, after {self.buffer!r}")
        before, self.buffer = self.buffer.split(mark, 1)
        return before + mark

    async def exactly(self, count: int) -> bytes:
        parts = [self.buffer]
        left = count - len(self.buffer)
        while left > 0:
            self.buffer = b""
            if not await self.more():
                raise Ended(f"{left} bytes early")
            parts.append(self.buffer)
            left -= len(self.buffer)
        data = b"".join(parts)
        self.buffer = data[count:]
        return data[:count]

    async def rest(self) -> bytes:
        """Return all that comes up to the end of the stream."""
        parts, self.buffer = [self.buffer], b""
        while await self.more():
            parts.append(self.buffer)
            self.buffer = b""
        return b"".join(parts)

    async def head(self) -> Message:
        return Message.of(await self.until(b"\r\n\r\n"))

    async def chunks(self, message: Message) -> None:
        parts = []
        while size := int(await self.until(b"\r\n"), 16):
            parts.append(await self.exactly(size))
            assert await self.exactly(2) == b"\r\n"
        message.body = b"".join(parts)
        while (line := await self.until(b"\r\n")) != b"\r\n":
            message.trailers.append(_field(line.removesuffix(b"\r\n")))

    async def request(self) -> Message:
        """Read a whole request."""
        message = await self.head()
        if message[b"transfer-encoding"]:
            await self.chunks(message)
        else:
            message.body = await self.exactly(int(message[b"content-length"] or 0))
        return message

    async def answer(self, method: bytes = b"GET") -> Message:
        """Read the next answer, an interim one too."""
        message = await self.head()
        if method == b"HEAD" or message.status < 200 or message.status in (204, 304):
            return message
        if message[b"transfer-encoding"]:
            await self.chunks(message)
        elif message[b"content-length"] is not None:
            message.body = await self.exactly(int(message[b"content-length"] or 0))
        else:
            message.body = await self.rest()
        return message

    async def ask(self, request: bytes = GET) -> Message:
        """Send a request and read its answer."""
        await self.send(request)
        return await self.answer(request.split(b" ", 1)[0])

    async def is_ended(self) -> bool:
        """Whether nothing more comes but the end, orderly or by a reset."""
        try:
            return await self.rest() == b""
        except trio.BrokenResourceError:
            return True


Serve = Callable[[Peer, list[Message]], Awaitable[None]]


@attrs.define(eq=False)
class Origin:
    """A backend that runs, and the requests that came to it."""

    server: Server
    requests: list[Message] = attrs.Factory(list)

    @property
    def backend(self) -> Backend:
        return self.server.backend

    @property
    def connections(self) -> int:
        return self.server.opened

    @property
    def paths(self) -> list[bytes]:
        return [request.path for request in self.requests]


def answering(answer: bytes | Callable[[Message], bytes] = OK) -> Serve:
    """Answer each request of each connection, the same or as it says."""

    async def serve(peer: Peer, requests: list[Message]) -> None:
        while peer.buffer or await peer.more():
            request = await peer.request()
            requests.append(request)
            await peer.send(answer if isinstance(answer, bytes) else answer(request))

    return serve


@asynccontextmanager
async def origin(serve: Serve | None = None) -> AsyncIterator[Origin]:
    """Run a backend on a port of its own."""
    serve = serve or answering()
    requests: list[Message] = []

    async def handle(stream: trio.SocketStream) -> None:
        # The proxy may go away at any time; what a test wants of it, the test asserts on its own side.
        with contextlib.suppress(Ended, trio.BrokenResourceError, trio.ClosedResourceError):
            await serve(Peer(stream), requests)

    async with open_loopback_wire() as wire, tcp_server(wire, serve=handle) as server:
        yield Origin(server, requests)


@attrs.define(eq=False)
class Site:
    """The tier at work; its clients are closed at the end."""

    running: object
    service: Service
    wire: object
    stack: AsyncExitStack

    async def client(self, service: Service | None = None) -> Peer:
        """Connect."""
        stream = await self.wire.connect((service or self.service).listen[0])
        return Peer(await self.stack.enter_async_context(stream))

    async def stats(self):
        return await self.running.stats_of(self.service)

    async def counts(self, what: str, want: object) -> None:
        """Wait until a counter has this value; ``drops.x`` and ``answers.x`` are those of a reason, or a class."""
        seen: list[object] = [None]
        name, _, key = what.partition(".")

        async def reached() -> bool:
            value = getattr(await self.stats(), name)
            seen[0] = value.get(key, 0) if key else value
            return seen[0] == want

        try:
            await until(reached)
        except TimeoutError:
            raise AssertionError(f"{what} is {seen[0]}, want {want}") from None


@asynccontextmanager
async def serving(
    *backends: Origin | Backend, http: Http | None = None, settings: Settings | None = None, **service: object
) -> AsyncIterator[Site]:
    """Run the tier for one HTTP service.

    Args:
        backends: Its backends.
        http: What it asks for.
        settings: All settings; one worker when None.
        service: More attributes of the service.
    """
    named = [one.backend if isinstance(one, Origin) else one for one in backends]
    subject = await Subject.of(plugin, settings or Settings(worker_threads=1))
    async with open_loopback_wire() as wire:
        one = attrs.evolve(service_for(wire, *named), **{"http": http or Http(), **service})
        async with subject.running(one) as running, AsyncExitStack() as stack:
            yield Site(running, one, wire, stack)


def events(written: str, name: str) -> list[dict[str, object]]:
    """Return the events of a name from what workers wrote."""
    told = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    return [event for event in told if event["event"] == name]


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip()
