"""A service whose TLS is passed through: clients that ask for its names are relayed to backends, byte by byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from marchproxy_core.relay.accepting import reset
from marchproxy_core.relay.tcp.connection import Connection
from marchproxy_core.relay.tcp.service import TcpService
from marchproxy_core.workers.ledger import ACTIVE, ALL_ACTIVE, OPENED

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from marchproxy_application.serving.admitting import Admission
    from marchproxy_application.worker import Application
    from marchproxy_core.drops import DropReason
    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.services import Endpoint


@final
class PassedThrough:
    """One such service in this worker; a front finds its clients, the core's relay carries them."""

    def __init__(self, application: Application, carried: Carried) -> None:
        """Have no connection yet."""
        self.loop = application.loop
        self.carried = carried
        self.fronts = application.fronts
        self.name = carried.work.service.name
        self._relay = TcpService(application.loop, carried, application.pipes)

    @property
    def active(self) -> int:
        """Number of open connections."""
        return self._relay.active

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that its clients ask for; none: any."""
        return self.carried.work.service.hosts

    def update(self) -> None:
        """Follow what changed in :attr:`carried`."""
        self._relay.update()
        self.fronts.routes_changed(self)

    def listen(self, sockets: Sequence[tuple[Endpoint, socket.socket]], *, serve_out: bool = False) -> None:
        """Take clients from these sockets, which other services may share."""
        self.fronts.listen(self, sockets, serve_out=serve_out)

    def drain(self) -> None:
        """Serve who is in the queues already, then take nobody any more."""
        self.fronts.listen(self, (), serve_out=True)

    def leave(self, taken: set[Endpoint]) -> None:
        """Do nothing: addresses are given up at once."""

    def close(self, reason: DropReason | None = None) -> None:
        """End everything at once; ``reason`` counts for each connection that is cut."""
        self.fronts.listen(self, ())
        self.fronts.cut(self, reason)
        self._relay.close(reason)

    def take(self, admission: Admission) -> None:
        """Relay a client whose ClientHello was looked at, and is still to be read."""
        carried, sock = self.carried, admission.sock
        if carried is not admission.carried:
            refusal = carried.refuses(self.loop.now_s, admission.peer[0])
            admission.forget_count()
            if refusal is not None:
                carried.drop(refusal)
                carried.counts[ALL_ACTIVE] -= 1
                self.loop.forget(admission.fd)
                reset(sock)
                return
            # It was counted for the listener's service; for all services together it stays one.
            counts, first = carried.counts, carried.first_cell
            counts[first + ACTIVE] += 1
            counts[first + OPENED] += 1
        connection = Connection(self._relay, sock, admission.peer)
        connection.proxied = admission.proxied
        connection.client.readable = True
        connection.client.gone = admission.gone
        self.loop.hand_over(admission.fd, connection.client.on_event)
        self._relay.connections.add(connection)
        connection.connect()
