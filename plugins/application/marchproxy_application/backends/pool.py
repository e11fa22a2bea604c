"""Connections to one backend: those that wait for a request, the last one used first, and who waits for one.

A request takes an idle connection in constant time. Liveness is asked of that one alone: the loop watches all of
them, so one that the backend has closed is gone already, unless it closed it just now.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from socket import SocketType
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.backends.connection import BackendConnection
from marchproxy_application.streams import WATCH
from marchproxy_core.drops import DropReason
from marchproxy_core.relay.outgoing import NO_DESCRIPTORS, set_buffers

if TYPE_CHECKING:
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.service import HttpService
    from marchproxy_core.services import Endpoint

_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_FRESH_S: Final = 1.0
"""How long a connection may be idle and be used without a question, by a request that could be sent again."""


@final
class Pool:
    """The connections of this worker to one backend of one service."""

    def __init__(self, service: HttpService, endpoint: Endpoint, cell: int) -> None:
        """Have none yet.

        Args:
            service: Whose backend it is.
            endpoint: The backend.
            cell: Counts the requests that it has, which is what balancing looks at.
        """
        self.service = service
        self.endpoint = endpoint
        self.cell = cell
        self.name = str(endpoint)
        self.quoted = f'"{endpoint}"'
        self._family = socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET
        self._address = (str(endpoint.ip), endpoint.port)
        self._idle: deque[BackendConnection] = deque()
        self._waiting: deque[Exchange] = deque()
        self._connecting: dict[Exchange, BackendConnection] = {}
        """Who waits for a connection that is being made for him."""
        self._all: set[BackendConnection] = set()
        self.is_closed = False
        """Whether connections that come back are closed: the backend is gone, or flushed."""

    def begin(self, exchange: Exchange) -> None:
        """Give a request a connection, now or later; it is told when there is none to be had."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if self._may_use(connection, exchange):
                connection.begin(exchange)
                return
            connection.close()
        http = self.service.http
        if http.max_backend_connections is not None and len(self._all) >= http.max_backend_connections:
            if len(self._waiting) >= http.max_waiting:
                exchange.backend_lacking(DropReason.POOL_EXHAUSTED, "too many wait for a connection")
            else:
                self._waiting.append(exchange)
            return
        self._connect(exchange)

    def give_back(self, connection: BackendConnection) -> None:
        """Take a connection whose answer is whole: for who waits, or for later."""
        service = self.service
        settings = service.carried.settings
        if self.is_closed or not settings.backend_keep_alive:
            connection.close()
            return
        waiting = self._next_waiting()
        if waiting is not None:
            connection.begin(waiting)
        elif len(self._idle) >= settings.backend_pool_size:
            connection.close()
        else:
            connection.idle_since_s = service.loop.now_s
            self._idle.append(connection)

    def forget(self, connection: BackendConnection) -> None:
        """Take note that a connection is closed; who waits may have another."""
        self._all.discard(connection)
        if connection.exchange is None and connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and not self.is_closed:
            waiting = self._next_waiting()
            if waiting is not None:
                self._connect(waiting)

    def stop_waiting(self, exchange: Exchange) -> None:
        """Forget a request that waits no more."""
        if self._waiting and exchange in self._waiting:
            self._waiting.remove(exchange)
        if self._connecting and (connection := self._connecting.pop(exchange, None)) is not None:
            connection.exchange = None

    def connected(self, exchange: Exchange | None) -> None:
        """Take note that what was connecting for a request is connected, or has failed."""
        if exchange is not None:
            self._connecting.pop(exchange, None)

    def look(self, now_s: float) -> None:
        """Close what has been idle for too long."""
        oldest_s = now_s - self.service.carried.settings.backend_pool_timeout
        while self._idle and self._idle[0].idle_since_s < oldest_s:
            self._idle.popleft().close()

    def close(self) -> None:
        """Close what is idle, and what comes back."""
        self.is_closed = True
        while self._idle:
            self._idle.popleft().close()

    def flush(self) -> None:
        """End everything at once."""
        self.close()
        for connection in tuple(self._all):
            connection.on_flushed()

    def _may_use(self, connection: BackendConnection, exchange: Exchange) -> bool:
        if exchange.is_repeatable and self.service.loop.now_s - connection.idle_since_s < _FRESH_S:
            return True
        return connection.is_alive()

    def _next_waiting(self) -> Exchange | None:
        while self._waiting:
            exchange = self._waiting.popleft()
            if exchange.pool is self:
                return exchange
        return None

    def _connect(self, exchange: Exchange) -> None:
        service = self.service
        sock = SocketType(self._family, _STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            set_buffers(sock, service.carried.settings)
            error = sock.connect_ex(self._address)
            if not error or error == errno.EINPROGRESS:
                connection = BackendConnection(self, sock, exchange)
                service.loop.watch(sock.fileno(), WATCH, connection.on_event)
        except OSError as failure:
            error = failure.errno or errno.EIO
        if not error or error == errno.EINPROGRESS:
            self._all.add(connection)
            self._connecting[exchange] = connection
            connection.start()
            return
        sock.close()
        if error in NO_DESCRIPTORS:
            exchange.backend_lacking(DropReason.NO_DESCRIPTORS, os.strerror(error))
        elif error == errno.EADDRNOTAVAIL:
            # connect(2): no port of ours is free; the backend is not to blame.
            exchange.backend_failed(DropReason.NO_SOURCE_PORT, os.strerror(error), sent=False)
        else:
            exchange.backend_failed(DropReason.BACKEND_REFUSED, os.strerror(error), sent=False)
