"""Bytes, ends and resets."""

from __future__ import annotations

import os
import socket
import struct

import trio

from marchproxy_core.testing import until
from tests.parity.ends import PATIENCE_S, RESET, SILENCE_S, fate, goes_on, receive
from tests.parity.scenario import scenario
from tests.parity.tier_site import SETTINGS

_BULK_BYTES = 1 << 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@scenario("1 MiB each way at the same time", alike=True)
async def bulk(stage):
    client, backend = await stage.pair()
    up, down = os.urandom(_BULK_BYTES), os.urandom(_BULK_BYTES)
    arrived = {}

    async def take(name, stream, count):
        arrived[name] = await receive(stream, count)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, up)
        nursery.start_soon(backend.send_all, down)
        nursery.start_soon(take, "up", backend, len(up))
        nursery.start_soon(take, "down", client, len(down))
    whole = arrived == {"up": up, "down": down}
    return "every byte arrives, in order" if whole else "bytes are lost or changed"


def _by_either(what):
    """Make two scenarios of a script about whoever acts first and the other: by the client, and by the backend."""

    def of(script):
        async def by_client(stage):
            client, backend = await stage.pair()
            return await script(client, backend)

        async def by_backend(stage):
            client, backend = await stage.pair()
            return await script(backend, client)

        return (
            scenario(f"{what} by the client", alike=True)(by_client),
            scenario(f"{what} by the backend", alike=True)(by_backend),
        )

    return of


@_by_either("half-close")
async def half_closes(first, second):
    await first.send_all(b"all of it")
    await first.send_eof()
    # More than was sent is asked for, so only the end of the stream ends this.
    heard = await receive(second, 100)
    answers = b"and yet"
    await second.send_all(answers)
    await second.send_eof()
    answered = await receive(first, 100)
    return (
        "passes; the other direction goes on" if (heard, answered) == (b"all of it", answers) else "is lost"
    )


@_by_either("reset")
async def resets(first, second):
    """Say a word and reset at once; the word may not be lost for it."""
    assert await goes_on(first, second)
    await first.send_all(b"last word")
    first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    first.socket.close()
    heard = await receive(second, len(b"last word"))
    end = await fate(second, SILENCE_S)
    before = (
        "what was said before arrives, then" if heard == b"last word" else "what was said before is lost;"
    )
    return f"{before} the other end is {end}"


@scenario("urgent data", note="Without it being urgent the byte arrives in line, or not at all.")
async def urgent(stage):
    client, backend = await stage.pair()
    up, down = await _is_urgent(client, backend), await _is_urgent(backend, client)
    return {(True, True): "arrives as such", (False, False): "does not arrive as such"}.get(
        (up, down), f"arrives as such: from the client {up}, from the backend {down}"
    )


async def _is_urgent(sender, receiver):
    await sender.send_all(b"before")
    assert await receive(receiver, len(b"before")) == b"before"
    await sender.socket.send(b"!", socket.MSG_OOB)
    heard = []

    async def asked():
        try:
            heard.append(await receiver.socket.recv(1, socket.MSG_OOB))
        except OSError:  # EINVAL while there is none, tcp(7)
            return False
        return True

    try:
        await until(asked, deadline_s=SILENCE_S)
    except TimeoutError:
        return False
    return heard == [b"!"]


@scenario(
    "a backend that does not read",
    long=True,
    note="`WRITE_TIMEOUT` counts from the last byte that was taken.",
)
async def unread(stage):
    stage.backend.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client, backend = await stage.pair()
    try:
        sent = await _send_until_held(client)
    except RESET:
        return f"after `WRITE_TIMEOUT` the client is reset, and the backend is {await fate(backend)}"
    arrived = len(await receive(backend, sent))
    return "the client is held back for as long as the backend likes" if arrived == sent else "bytes are lost"


async def _send_until_held(client):
    """Send until nothing is taken for much longer than a proxy would wait; return how many bytes were."""
    sent, chunk = 0, bytes(1 << 16)
    with trio.fail_after(PATIENCE_S):
        while True:
            with trio.move_on_after(2 * float(SETTINGS["write_timeout"])) as held:
                sent += await client.socket.send(chunk)
            if held.cancelled_caught:
                return sent
