"""A service as clients see it, and as the configuration has it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import attrs
import trio
from system_rig.client import LONGEST_S, RESET, Client, DatagramClient
from system_rig.sockets import OpenSocket, open_here

if TYPE_CHECKING:
    from system_rig.server import DatagramServer, Server


@attrs.define(eq=False)
class Service:
    """One service on one port."""

    name: str
    port: int
    ip: str = "127.0.0.1"
    """Where clients connect."""
    options: dict[str, object] = attrs.field(factory=dict)
    """Its keys in the configuration, but for its name."""
    clients: list[Client | DatagramClient] = attrs.field(factory=list)
    """All that ever came; the site closes those that the test left open."""
    open_socket: OpenSocket = open_here
    """Where clients are."""

    @property
    def written(self) -> dict[str, object]:
        """What the file has."""
        address = f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"
        return {"name": self.name, "listen": address, **self.options}

    def give(self, *servers: Server | DatagramServer) -> None:
        """Have these backends, from the next reload on."""
        self.options["backends"] = [server.backend() for server in servers]

    async def knock(self, *, ip: str = "", source: str = "") -> Client:
        """Connect, and wait for nothing more.

        Raises:
            OSError: Nobody listens there.
        """
        ip = ip or self.ip
        sock = self.open_socket(ip, socket.SOCK_STREAM)
        try:
            if source:
                await sock.bind((source, 0))
            with trio.fail_after(LONGEST_S):
                await sock.connect((ip, self.port))
        except BaseException:
            sock.close()
            raise
        client = Client(trio.SocketStream(sock))
        self.clients.append(client)
        return client

    async def call(self, *, ip: str = "", source: str = "") -> Client:
        """Connect and hear which backend answers; the caller may end the client."""
        client = await self.knock(ip=ip, source=source)
        assert await client.hears(), "the connection ended without a word"
        return client

    async def visit(self, *, ip: str = "", source: str = "") -> str:
        """Come, hear the backend's name, and go.

        Returns:
            The name, or what happened instead: ``refused``, ``reset``, ``ended``.
        """
        try:
            client = await self.knock(ip=ip, source=source)
        except ConnectionRefusedError:
            return "refused"
        except RESET:
            return "reset"
        async with client.stream:
            try:
                name = await client.hears()
                if not name:
                    return "ended"
                await client.stream.send_eof()
                return name.decode() if await client.fate() == "ended" else "reset"
            except RESET:
                return "reset"

    async def talk(self, *, ip: str = "", source: str = "") -> DatagramClient:
        """Open a UDP client; the first datagram is the test's to send."""
        ip = ip or self.ip
        sock = self.open_socket(ip, socket.SOCK_DGRAM)
        client = DatagramClient(sock)
        self.clients.append(client)
        if source:
            await sock.bind((source, 0))
        await sock.connect((ip, self.port))
        return client
