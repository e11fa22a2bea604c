"""Clients that speak HTTP/1.1 and WebSocket, over TLS or not, and take nothing for whole that is not."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import attrs
import h11
import trio
import wsproto
from system_rig.client import LONGEST_S, RESET
from system_rig.web_server import next_event
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

if TYPE_CHECKING:
    from system_rig.service import Service

ENDED = (*RESET, h11.RemoteProtocolError, ssl.SSLError)
"""How a client of HTTP learns that an answer will never be whole."""


@attrs.frozen
class Answer:
    """A whole answer."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


async def connect(
    service: Service, context: ssl.SSLContext | None = None, name: str = "localhost"
) -> trio.abc.Stream:
    """Connect to a service, and shake hands where there is a context."""
    client = await service.knock()
    if context is None:
        return client.stream
    stream = trio.SSLStream(client.stream, context, server_hostname=name, https_compatible=True)
    with trio.fail_after(LONGEST_S):
        await stream.do_handshake()
    return stream


@attrs.define(eq=False)
class WebClient:
    """A connection that asks once or again and again."""

    stream: trio.abc.Stream
    asked: int = 0
    heard: int = 0
    """Bytes of answers."""
    _connection: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.CLIENT))

    @classmethod
    async def to(cls, service: Service, context: ssl.SSLContext | None = None) -> WebClient:
        """Connect."""
        return cls(await connect(service, context))

    async def ask(self, path: str = "/", *, method: str = "GET", body: bytes = b"", **fields: str) -> Answer:
        """Ask and return the whole answer; fields have ``_`` for ``-``.

        Raises:
            ENDED: There is none.
        """
        with trio.fail_after(LONGEST_S):
            await self.send(path, method=method, body=body, **fields)
            return await self.answer()

    async def send(
        self, path: str = "/", *, method: str = "GET", body: bytes = b"", size: int = -1, **fields: str
    ) -> None:
        """Send a request; with a ``size`` its body is the test's to send."""
        self.asked += 1
        size = len(body) if size < 0 else size
        headers = [("host", "localhost"), ("content-length", str(size))] if size else [("host", "localhost")]
        headers += [(name.replace("_", "-"), value) for name, value in fields.items()]
        data = self._connection.send(h11.Request(method=method, target=path, headers=headers))
        if size == len(body):
            data += self._connection.send(h11.Data(data=body)) + self._connection.send(h11.EndOfMessage())
        await self.stream.send_all(data)

    async def send_zeros(self, count: int) -> None:
        """Send the body of a request that was begun."""
        piece = bytes(1 << 18)
        while count:
            await self.stream.send_all(self._connection.send(h11.Data(data=piece[:count])))
            count -= min(count, len(piece))
        self._connection.send(h11.EndOfMessage())

    async def answer(self) -> Answer:
        """Read a whole answer, of which the body's zeros are not kept."""
        self.heard = 0
        response = await next_event(self._connection, self.stream)
        if not isinstance(response, h11.Response):
            raise h11.RemoteProtocolError("the connection ended before the answer")
        parts = []
        while isinstance(data := await next_event(self._connection, self.stream), h11.Data):
            self.heard += len(data.data)
            if self.heard < 1 << 20:
                parts.append(bytes(data.data))
        if self._connection.our_state is h11.DONE and self._connection.their_state is h11.DONE:
            self._connection.start_next_cycle()
        fields = {name.decode(): value.decode() for name, value in response.headers}
        return Answer(response.status_code, fields, b"".join(parts))

    @property
    def keeps(self) -> bool:
        """Whether it can ask again."""
        return self._connection.our_state is h11.IDLE

    async def close(self) -> None:
        """End it."""
        await trio.aclose_forcefully(self.stream)


async def ask(
    service: Service, path: str = "/", context: ssl.SSLContext | None = None, **more: str
) -> Answer:
    """Ask on a connection of its own."""
    client = await WebClient.to(service, context)
    try:
        return await client.ask(path, **more)
    finally:
        await client.close()


@attrs.define(eq=False)
class WebSocket:
    """An open WebSocket."""

    stream: trio.abc.Stream
    server: str = ""
    """The name of the backend."""
    _socket: wsproto.WSConnection = attrs.field(
        factory=lambda: wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    )

    async def open(self, path: str = "/", *, named: bool = True, **fields: str) -> None:
        """Ask for it, and hear the backend's name where it says one."""
        headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
        request = Request(host="localhost", target=path, extra_headers=headers)
        with trio.fail_after(LONGEST_S):
            await self.stream.send_all(self._socket.send(request))
            assert isinstance(await self._next(), AcceptConnection)
            if named:
                name = await self._next()
                assert isinstance(name, TextMessage)
                self.server = name.data

    async def echoes(self, text: str = "ping") -> bool:
        """Whether it still works, from end to end."""
        with trio.fail_after(LONGEST_S):
            try:
                await self.stream.send_all(self._socket.send(TextMessage(data=text)))
                answer = await self._next()
            except (*RESET, wsproto.utilities.LocalProtocolError):
                return False
        return isinstance(answer, TextMessage) and answer.data == text

    async def fate(self) -> int | str:
        """Wait for its end: the status of its Close, or ``reset`` or ``ended``; answers a Close."""
        with trio.fail_after(LONGEST_S):
            try:
                event = await self._next()
                if isinstance(event, CloseConnection):
                    code = int(event.code)
                    await self.stream.send_all(self._socket.send(event.response()))
                    return code
            except RESET:
                return "reset"
        assert event is None, event
        return "ended"

    async def _next(self) -> object:
        while True:
            event = next(iter(self._socket.events()), None)
            if event is not None:
                return event
            data = await self.stream.receive_some(1 << 16)
            if not data:
                return None
            self._socket.receive_data(data)


async def web_socket(
    service: Service,
    context: ssl.SSLContext | None = None,
    path: str = "/",
    *,
    named: bool = True,
    **fields: str,
) -> WebSocket:
    """Open a WebSocket."""
    opened = WebSocket(await connect(service, context))
    await opened.open(path, named=named, **fields)
    return opened
