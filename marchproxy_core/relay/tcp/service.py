"""One TCP service in this worker: accepts clients, and has their connections."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, final

from marchproxy_core.relay.accepting import Acceptor
from marchproxy_core.relay.outgoing import set_buffers
from marchproxy_core.relay.tcp.connection import Connection
from marchproxy_core.services import ProxyHeader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import SocketType

    from marchproxy_core.drops import DropReason
    from marchproxy_core.relay.accepting import Address
    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.relay.loop import Loop
    from marchproxy_core.relay.tcp.pipes import Pipes
    from marchproxy_core.services import Endpoint

# Plain numbers: the enumerations of Python's module cost more than the system calls they are for.
_IPV4: Final = int(socket.AF_INET)
_IPV6: Final = int(socket.AF_INET6)
_TCP: Final = int(socket.IPPROTO_TCP)
_NODELAY: Final = socket.TCP_NODELAY


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
        self._acceptor = Acceptor(loop, carried, self._take)
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
        """Accept from exactly these sockets, as :meth:`Acceptor.listen` does."""
        self._acceptor.listen([sock for _, sock in sockets], serve_out=serve_out)

    def drain(self) -> None:
        """Serve who is in the queues already, then accept nobody any more."""
        self._acceptor.listen((), serve_out=True)

    def leave(self, taken: set[Endpoint]) -> None:
        """Do nothing: a TCP service gives its addresses up at once when it drains."""

    def close(self, reason: DropReason | None = None) -> None:
        """End everything at once; ``reason`` counts for each connection that is cut."""
        self._acceptor.close()
        for connection in tuple(self.connections):
            connection.finish(reason, reset=reason is not None)

    def key_of(self, client: Address) -> bytes:
        """Return what keeps a client at its backend: its packed IP address."""
        host = client[0].partition("%")[0]
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)

    def prepare(self, sock: SocketType) -> None:
        """Set a socket's options before it connects to a backend."""
        sock.setsockopt(_TCP, _NODELAY, 1)
        set_buffers(sock, self.carried.settings)

    def _take(self, sock: SocketType, peer: Address) -> None:
        connection = Connection(self, sock, peer)
        self.connections.add(connection)
        self.carried.opened()
        connection.start()
