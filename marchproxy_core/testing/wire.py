"""Where a tier's traffic runs while it is tested: addresses, settings, and sockets on either side of it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Endpoint, Protocol
from marchproxy_core.testing.lab import Dual, Lab
from marchproxy_core.testing.lab.entering import inside

if TYPE_CHECKING:
    from marchproxy_core.services import IPAddress

OpenSocket = Callable[[socket.AddressFamily, socket.SocketKind], Awaitable[socket.socket]]


@attrs.frozen(kw_only=True, eq=False)
class Wire:
    """A client and a server on either side of the tier, which runs in this process's own namespace."""

    front: Dual
    """Where services listen."""
    server: Dual
    """Where backends listen."""
    open_client: OpenSocket
    """Open a socket on the client's side, non-blocking."""
    open_server: OpenSocket
    versions: tuple[int, ...] = (4, 6)
    """IP versions that work here."""
    settings: Settings = attrs.field(factory=lambda: Settings(worker_threads=2))
    """What the operator would have set; a tier that needs more evolves its wire."""

    def free_port(self, protocol: Protocol, version: int) -> Endpoint:
        """Return an address in front whose port nobody uses."""
        family, kind = _family(self.front.of(version)), _kind(protocol)
        with socket.socket(family, kind) as sock:
            sock.bind((str(self.front.of(version)), 0))
            return Endpoint(self.front.of(version), sock.getsockname()[1])

    async def connect(self, endpoint: Endpoint) -> trio.SocketStream:
        """Connect a client by TCP; the caller closes the stream.

        Raises:
            OSError: Nobody listens there.
        """
        sock = trio.socket.from_stdlib_socket(
            await self.open_client(_family(endpoint.ip), socket.SOCK_STREAM)
        )
        with _closed_on_error(sock):
            await sock.connect((str(endpoint.ip), endpoint.port))
        return trio.SocketStream(sock)

    async def connect_udp(self, endpoint: Endpoint) -> trio.socket.SocketType:
        """Open a UDP client that talks to one address; the caller closes it."""
        sock = trio.socket.from_stdlib_socket(await self.open_client(_family(endpoint.ip), socket.SOCK_DGRAM))
        with _closed_on_error(sock):
            await sock.connect((str(endpoint.ip), endpoint.port))
        return sock

    async def bind_server(self, protocol: Protocol, version: int) -> trio.socket.SocketType:
        """Open a server's socket on a port that the kernel picks, listening if TCP; the caller closes it."""
        ip = self.server.of(version)
        sock = trio.socket.from_stdlib_socket(await self.open_server(_family(ip), _kind(protocol)))
        with _closed_on_error(sock):
            await sock.bind((str(ip), 0))
            if protocol is Protocol.TCP:
                sock.listen(1024)
        return sock


@asynccontextmanager
async def open_loopback_wire() -> AsyncIterator[Wire]:
    """Use the loopback interface for all of it; needs no rights."""
    await trio.lowlevel.checkpoint()
    here = Dual("127.0.0.1", "::1")
    yield Wire(
        front=here,
        server=here,
        open_client=_open,
        open_server=_open,
        versions=(4, 6) if _has_ipv6() else (4,),
    )


@asynccontextmanager
async def open_lab_wire(lab: Lab) -> AsyncIterator[Wire]:
    """Use a laboratory: the client's and the server's sockets are in their namespaces, the tier is in the proxy's.

    For as long as the block runs, this process's trio threads are in the proxy's namespace, and what they start
    is too. What /sys shows stays the host's.
    """
    async with inside(lab.proxy):
        yield Wire(
            front=lab.front_ip,
            server=lab.server_ip,
            open_client=lab.client.socket,
            open_server=lab.server.socket,
        )


async def _open(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    await trio.lowlevel.checkpoint()
    return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextmanager
def _closed_on_error(sock: trio.socket.SocketType) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _family(ip: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET6 if ip.version == 6 else socket.AF_INET


def _kind(protocol: Protocol) -> socket.SocketKind:
    return socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
