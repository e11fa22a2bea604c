"""A backend that can be stopped and started again on the same port."""

from __future__ import annotations

import socket

import attrs
import trio
from system_rig.client import RESET
from system_rig.sockets import OpenSocket, open_here


@attrs.define(eq=False)
class Server:
    """Says its one-letter name, then echoes to the end of the stream; or answers HTTP."""

    name: bytes
    ip: str
    port: int
    nursery: trio.Nursery
    status: int = 0
    """A status to answer every request with; 0: no HTTP, echo."""
    opened: int = 0
    """Connections that it accepted."""
    open_socket: OpenSocket = open_here
    _scope: trio.CancelScope | None = None
    _stopped: trio.Event = attrs.field(factory=trio.Event)

    def backend(self, *, weight: int = 1) -> dict[str, object]:
        """How a service names it."""
        return {"ip": self.ip, "port": self.port, "weight": weight}

    async def start(self) -> None:
        """Listen."""
        sock = self.open_socket(self.ip, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await sock.bind((self.ip, self.port))
        sock.listen(1024)
        self._scope, self._stopped = trio.CancelScope(), trio.Event()
        self.nursery.start_soon(self._accept, trio.SocketListener(sock), self._scope, self._stopped)

    async def stop(self) -> None:
        """Close the listener, so that the kernel refuses; what is established goes on."""
        assert self._scope is not None
        self._scope.cancel()
        await self._stopped.wait()

    async def _accept(
        self, listener: trio.SocketListener, scope: trio.CancelScope, stopped: trio.Event
    ) -> None:
        with scope:
            await trio.serve_listeners(self._answer, [listener], handler_nursery=self.nursery)
        stopped.set()

    async def _answer(self, stream: trio.SocketStream) -> None:
        self.opened += 1
        async with stream:
            try:
                if self.status:
                    await stream.receive_some()
                    await stream.send_all(b"HTTP/1.1 %d So\r\nContent-Length: 0\r\n\r\n" % self.status)
                    return
                await stream.send_all(self.name)
                async for data in stream:
                    await stream.send_all(data)
                await stream.send_eof()
            except RESET:
                return  # clients may end as they like


@attrs.define(eq=False)
class DatagramServer:
    """Answers each datagram with its one-letter name and the datagram."""

    name: bytes
    ip: str
    port: int
    nursery: trio.Nursery
    open_socket: OpenSocket = open_here
    _scope: trio.CancelScope | None = None
    _stopped: trio.Event = attrs.field(factory=trio.Event)

    def backend(self, *, weight: int = 1) -> dict[str, object]:
        """How a service names it."""
        return {"ip": self.ip, "port": self.port, "weight": weight}

    async def start(self) -> None:
        """Answer, on the same port as before."""
        sock = self.open_socket(self.ip, socket.SOCK_DGRAM)
        await sock.bind((self.ip, self.port))
        self._scope, self._stopped = trio.CancelScope(), trio.Event()
        self.nursery.start_soon(self._answer, sock, self._scope, self._stopped)

    async def stop(self) -> None:
        """Close the socket, so that the kernel refuses."""
        assert self._scope is not None
        self._scope.cancel()
        await self._stopped.wait()

    async def _answer(
        self, sock: trio.socket.SocketType, scope: trio.CancelScope, stopped: trio.Event
    ) -> None:
        with scope, sock:
            while True:
                try:
                    data, peer = await sock.recvfrom(1 << 16)
                    await sock.sendto((self.name + data)[:65507], peer)
                except ConnectionError:
                    continue  # an earlier answer came too late for its receiver
        stopped.set()
