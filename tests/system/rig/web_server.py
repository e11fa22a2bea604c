"""A backend that speaks HTTP/1.1 and WebSocket, and breaks off where a test wants it to."""

from __future__ import annotations

import json
import socket
import struct

import attrs
import h11
import trio
import wsproto
from system_rig.client import RESET
from system_rig.server import Server
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_PIECE = bytes(1 << 18)
HALF = b"half of it"


@attrs.define(eq=False)
class WebServer(Server):
    """Answers by path: ``/`` with its name, ``/head`` with the request's fields, ``/size`` with how long its body was,
    ``/zeros/N`` with so many, ``/half/FRAMING/END`` with half of a body, and echoes what comes by WebSocket.
    """

    paths: list[str] = attrs.field(factory=list)
    """Of all requests."""
    lets_go: trio.Event = attrs.field(factory=trio.Event)
    """Until it is set, ``/wait`` is not answered and ``/half`` not broken off."""
    _scopes: set[trio.CancelScope] = attrs.field(factory=set)

    async def die(self) -> None:
        """Do as the kernel does for a process that is killed: refuse, and reset all that is established."""
        await self.stop()
        for scope in self._scopes:
            scope.cancel()

    async def _answer(self, stream: trio.SocketStream) -> None:
        self.opened += 1
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with stream:
                    try:
                        await self._serve(stream)
                    except (*RESET, h11.RemoteProtocolError):
                        return  # the proxy may end as it likes
                    except trio.Cancelled:
                        reset(stream)
                        raise
            finally:
                self._scopes.discard(scope)

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            request = await next_event(connection, stream)
            if not isinstance(request, h11.Request):
                return
            path = request.target.decode()
            self.paths.append(path)
            if (b"upgrade", b"websocket") in request.headers:
                await self._converse(request, connection, stream)
                return
            size = 0
            while isinstance(data := await next_event(connection, stream), h11.Data):
                size += len(data.data)
            if path.startswith("/half/"):
                await self._break_off(stream, *path.split("/")[2:])
                return
            await self._say(connection, stream, path, request, size)
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    async def _say(
        self,
        connection: h11.Connection,
        stream: trio.SocketStream,
        path: str,
        request: h11.Request,
        size: int,
    ) -> None:
        if path.startswith("/zeros/"):
            await self._send_zeros(connection, stream, int(path.rpartition("/")[2]))
            return
        if path == "/wait":
            await self.lets_go.wait()
        fields = {name.decode(): value.decode() for name, value in request.headers}
        body = {"/head": json.dumps(fields).encode(), "/size": b"%d" % size}.get(path, self.name)
        await stream.send_all(
            connection.send(h11.Response(status_code=200, headers=[("content-length", str(len(body)))]))
            + connection.send(h11.Data(data=body))
            + connection.send(h11.EndOfMessage())
        )

    async def _send_zeros(self, connection: h11.Connection, stream: trio.SocketStream, count: int) -> None:
        await stream.send_all(
            connection.send(h11.Response(status_code=200, headers=[("content-length", str(count))]))
        )
        while count:
            piece = _PIECE[:count]
            await stream.send_all(connection.send(h11.Data(data=piece)))
            count -= len(piece)
        await stream.send_all(connection.send(h11.EndOfMessage()))

    async def _break_off(self, stream: trio.SocketStream, framing: str, end: str) -> None:
        fields, body = {
            "length": (b"Content-Length: 1000\r\n", HALF),
            "chunked": (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n" % (len(HALF), HALF)),
            "rest": (b"Connection: close\r\n", HALF),
        }[framing]
        await stream.send_all(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (fields, body))
        await self.lets_go.wait()
        if end == "reset":
            reset(stream)

    async def _converse(
        self, request: h11.Request, connection: h11.Connection, stream: trio.SocketStream
    ) -> None:
        """Say the name in a first message, then echo."""
        socket_ = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        socket_.initiate_upgrade_connection(list(request.headers), request.target.decode())
        socket_.receive_data(connection.trailing_data[0] or None)
        while True:
            for event in socket_.events():
                match event:
                    case Request():
                        answer = socket_.send(AcceptConnection())
                        answer += socket_.send(TextMessage(data=self.name.decode()))
                    case TextMessage():
                        answer = socket_.send(TextMessage(data=event.data))
                    case Ping():
                        answer = socket_.send(event.response())
                    case CloseConnection():
                        if socket_.state is not wsproto.connection.ConnectionState.CLOSED:
                            await stream.send_all(socket_.send(event.response()))
                        return
                    case _:
                        continue
                await stream.send_all(answer)
            data = await stream.receive_some(1 << 16)
            if not data:
                return
            socket_.receive_data(data)


def reset(stream: trio.SocketStream) -> None:
    """Have the stream's end be a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


async def next_event(connection: h11.Connection, stream: trio.abc.Stream) -> object:
    """Return what comes next on a connection of HTTP/1.1."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(1 << 18))
    return event
