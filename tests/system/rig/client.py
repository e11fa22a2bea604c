"""Clients of a service."""

from __future__ import annotations

import attrs
import trio

from marchproxy_core.testing.servers import receive_all, receive_exactly

RESET = (trio.BrokenResourceError, ConnectionResetError)
"""How a client learns of a reset: after its connect, or already in it."""
LONGEST_S = 30.0
"""Ends what hangs; nothing is expected to take so long."""


@attrs.define(eq=False)
class Client:
    """A connection to a service."""

    stream: trio.SocketStream
    server: bytes = b""
    """The name of the backend that answered."""

    async def hears(self) -> bytes:
        """Wait for the backend's name; empty when the connection ends without a word.

        Raises:
            BrokenResourceError: It was reset.
        """
        with trio.fail_after(LONGEST_S):
            self.server = await self.stream.receive_some(1)
        return self.server

    async def echoes(self, data: bytes = b"ping") -> bool:
        """Whether the connection still works, from end to end."""
        try:
            with trio.fail_after(LONGEST_S):
                await self.stream.send_all(data)
                return await receive_exactly(self.stream, len(data)) == data
        except RESET:
            return False

    async def fate(self) -> str:
        """Wait for the connection's end, ``reset`` or ``ended``, and close it."""
        with trio.fail_after(LONGEST_S):
            async with self.stream:
                try:
                    await receive_all(self.stream)
                except RESET:
                    return "reset"
        return "ended"

    def close(self) -> None:
        """Close it, whatever state it is in."""
        self.stream.socket.close()

    async def end(self) -> str:
        """Say that nothing more comes, and wait for the connection's end."""
        await self.stream.send_eof()
        return await self.fate()


@attrs.define(eq=False)
class DatagramClient:
    """One UDP socket that talks to one service."""

    sock: trio.socket.SocketType

    async def asks(self, data: bytes = b"ping", *, wait_s: float = LONGEST_S) -> str:
        """Send a datagram; return the name of the backend that answers it, ``nothing`` when none does in time."""
        await self.sock.send(data)
        with trio.move_on_after(wait_s):
            while True:
                try:
                    answer = await self.sock.recv(1 << 16)
                except ConnectionRefusedError:
                    return "refused"
                if answer[1:] == data[: len(answer) - 1]:
                    return answer[:1].decode()
        return "nothing"

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
