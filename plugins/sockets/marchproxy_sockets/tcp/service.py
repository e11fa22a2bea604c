"""One TCP service in this worker: accepts clients, and has their connections."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
from socket import SocketType
from typing import TYPE_CHECKING, Final, final

from marchproxy_core.drops import DropReason
from marchproxy_core.services import ProxyHeader
from marchproxy_sockets.outgoing import NO_DESCRIPTORS, set_buffers
from marchproxy_sockets.tcp.connection import RESET_ON_CLOSE, Address, Connection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marchproxy_core.services import Endpoint
    from marchproxy_sockets.carried import Carried
    from marchproxy_sockets.loop import Loop
    from marchproxy_sockets.tcp.pipes import Pipes

# Plain numbers: the enumerations of Python's module cost more than the system calls they are for.
_IPV4: Final = int(socket.AF_INET)
_IPV6: Final = int(socket.AF_INET6)
_STREAM: Final = int(socket.SOCK_STREAM)
_TCP: Final = int(socket.IPPROTO_TCP)
_NODELAY: Final = socket.TCP_NODELAY
_ACCEPTS = 64
"""How many clients are taken at once before others get their turn."""


@final
class TcpService:
    """Accepts for one service; owns the listening sockets that it is given, and all connections."""

    def __init__(self, loop: Loop, carried: Carried, pipes: Pipes) -> None:
        """Accept nothing yet."""
        self.loop = loop
        self.carried = carried
        self.pipes = pipes
        self.connections: set[Connection] = set()
        self._settings = carried.settings
        self._listening: list[socket.socket] = []
        # Given up for a moment when descriptors run out, so that a client can be told.
        self._reserve = _open_reserve()
        self.update()

    @property
    def active(self) -> int:
        """Number of open connections."""
        return len(self.connections)

    def update(self) -> None:
        """Follow what changed in :attr:`carried`."""
        carried = self.carried
        if carried.settings is not self._settings:
            self._settings = carried.settings
            due_s = self.loop.now_s + min(self._settings.idle_timeout, self._settings.write_timeout)
            for connection in self.connections:
                self.loop.expire_by(connection, due_s)
        self.sends_header = carried.work.service.proxy_protocol.send is not ProxyHeader.OFF
        self.targets = tuple(
            (_IPV6 if endpoint.ip.version == 6 else _IPV4, (str(endpoint.ip), endpoint.port))
            for endpoint in carried.backends
        )
        """Family and address of each backend, as connect(2) wants them."""
        if carried.flushed:
            for connection in [one for one in self.connections if one.backend_endpoint in carried.flushed]:
                connection.flush()

    def listen(self, sockets: Sequence[tuple[Endpoint, socket.socket]], *, serve_out: bool = False) -> None:
        """Accept from exactly these sockets; those not named any more are closed.

        Args:
            sockets: The sockets, each with its address.
            serve_out: Whether those that go away are gone for good, so that who waits in their queues is served
                first; else somebody else goes on with them.
        """
        wanted = [sock for _, sock in sockets]
        for sock in [sock for sock in self._listening if sock not in wanted]:
            self._listening.remove(sock)
            while serve_out and self._accept(sock):
                pass
            self.loop.close_socket(sock)
        for sock in wanted:
            if sock not in self._listening:
                # Accepted sockets inherit it: small messages are not to wait for acknowledgements.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._listening.append(sock)
                self.loop.watch(sock.fileno(), select.EPOLLIN, functools.partial(self._on_clients, sock))

    def drain(self) -> None:
        """Serve who is in the queues already, then accept nobody any more."""
        self.listen((), serve_out=True)

    def close(self, reason: DropReason | None = None) -> None:
        """End everything at once; ``reason`` counts for each connection that is cut."""
        self.listen(())
        for connection in tuple(self.connections):
            connection.finish(reason, reset=reason is not None)
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def key_of(self, client: Address) -> bytes:
        """Return what keeps a client at its backend: its packed IP address."""
        host = client[0].partition("%")[0]
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)

    def prepare(self, sock: SocketType) -> None:
        """Set a socket's options before it connects to a backend."""
        sock.setsockopt(_TCP, _NODELAY, 1)
        set_buffers(sock, self.carried.settings)

    def _on_clients(self, sock: socket.socket, events: int) -> None:
        del events
        for _ in range(_ACCEPTS):
            if not self._accept(sock):
                return

    def _accept(self, listening: socket.socket) -> bool:
        """Accept one client; false when there is none."""
        try:
            # What accept() calls; without the object of a Python class that it makes, a connection costs a tenth less.
            descriptor, peer = listening._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        except OSError as error:
            # Anything else is about a client that is gone already (accept(2), Error handling): the next one, please.
            return error.errno not in NO_DESCRIPTORS or self._shed(listening)
        sock = SocketType(_IPV6 if len(peer) == 4 else _IPV4, _STREAM, 0, descriptor)
        refusal = self.carried.refuses(self.loop.now_s, peer[0])
        if refusal is not None:
            self.carried.drop(refusal)
            _reset(sock)
            return True
        sock.setblocking(False)
        connection = Connection(self, sock, peer)
        self.connections.add(connection)
        self.carried.opened()
        connection.start()
        return True

    def _shed(self, listening: socket.socket) -> bool:
        """Out of descriptors: take a client with the one in reserve, only to reset it. False when there is none."""
        if self._reserve < 0:
            self._reserve = _open_reserve()
            return False
        os.close(self._reserve)
        self._reserve = -1
        try:
            with contextlib.suppress(OSError):
                sock, _ = listening.accept()
                self.carried.drop(DropReason.NO_DESCRIPTORS)
                _reset(sock)
                return True
        finally:
            self._reserve = _open_reserve()
        return False


def _open_reserve() -> int:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _reset(sock: SocketType) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()
