"""What both ends of a connection show, in words."""

from __future__ import annotations

import trio

SILENCE_S = 2.0
"""What has not come by then is taken not to come. Long enough for a retransmission, the first is after 0.2 s."""
PATIENCE_S = 20.0
"""Ends what hangs."""
RESET = (trio.BrokenResourceError, ConnectionResetError, BrokenPipeError)


async def receive(stream: trio.SocketStream, count: int) -> bytes:
    """Receive so many bytes, or less when the stream ends or is reset."""
    data = bytearray()
    with trio.fail_after(PATIENCE_S):
        try:
            while len(data) < count and (some := await stream.receive_some(count - len(data))):
                data += some
        except RESET:
            pass
    return bytes(data)


async def fate(stream: trio.SocketStream, within_s: float = PATIENCE_S) -> str:
    """Wait for the stream's end: ``closed`` in order, ``reset``, or ``open`` when it does not end in time."""
    with trio.move_on_after(within_s):
        try:
            while await stream.receive_some():
                pass
        except RESET:
            return "reset"
        else:
            return "closed"
    return "open"


async def carries(sender: trio.SocketStream, receiver: trio.SocketStream, data: bytes) -> bool:
    """Whether bytes come through, whole, before silence is taken for an answer."""
    with trio.move_on_after(SILENCE_S):
        try:
            await sender.send_all(data)
        except RESET:
            return False
        return await receive(receiver, len(data)) == data
    return False


async def goes_on(client: trio.SocketStream, backend: trio.SocketStream) -> bool:
    """Whether a connection still carries bytes both ways."""
    return await carries(client, backend, b"ping") and await carries(backend, client, b"pong")


async def fate_of(client: trio.SocketStream, backend: trio.SocketStream) -> str:
    """What became of a connection, as its client sees it now, and when it next says something."""
    now = await fate(client, SILENCE_S)
    if now != "open":
        return f"is {now}"
    if await goes_on(client, backend):
        return "goes on"
    return f"hears nothing; at his next packet he is {await fate(client, SILENCE_S)}"
