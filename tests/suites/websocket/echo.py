"""A WebSocket server that says back what it is told; started with the port of 127.0.0.1 to listen on.

It answers what it reads in the order in which it reads it, so it does the same each time, however bytes are cut.
"""

from __future__ import annotations

import sys

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import RemoteProtocolError

_MOST_BYTES = 1 << 16


async def talk(stream: trio.SocketStream) -> None:
    """Serve one client to the end of its connection."""
    socket = WSConnection(ConnectionType.SERVER)
    parts: list[str | bytes] = []
    try:
        while data := await stream.receive_some(_MOST_BYTES):
            out, ends = b"", False
            try:
                socket.receive_data(data)
                for event in socket.events():
                    out += answer(socket, event, parts)
                    ends = ends or isinstance(event, CloseConnection)
            except RemoteProtocolError as error:
                out += socket.send(error.event_hint) if error.event_hint is not None else b""
                ends = True
            await stream.send_all(out)
            if ends:
                return
    except trio.BrokenResourceError:
        return


def answer(socket: WSConnection, event: Event, parts: list[str | bytes]) -> bytes:
    """Return the bytes that answer an event.

    Args:
        socket: The connection that it is of.
        event: What happened.
        parts: Those that have come of a message that is not whole yet.
    """
    match event:
        case Request():
            return socket.send(AcceptConnection(extensions=[PerMessageDeflate()]))
        case Ping() | CloseConnection():
            return socket.send(event.response())
        case Message():
            parts.append(event.data)
            if event.message_finished:
                return socket.send(whole(event, parts))
    return b""


def whole(last: Message, parts: list[str | bytes]) -> Message:
    """Return the message whose last part has come."""
    if isinstance(last, TextMessage):
        message: Message = TextMessage(data="".join(str(part) for part in parts))
    else:
        message = BytesMessage(data=b"".join(bytes(part) for part in parts))
    parts.clear()
    return message


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    await trio.serve_tcp(talk, port, host="127.0.0.1")


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
