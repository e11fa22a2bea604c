"""Connections to one backend that speaks HTTP/2: few, each with as many requests at once as the backend takes."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.backends.beginning import Verified, verified_by
from marchproxy_application.backends.connecting import connect, tell_failure
from marchproxy_application.backends.http2_connection import UNTIL_TOLD, Http2BackendConnection
from marchproxy_application.streams import WATCH
from marchproxy_application.tls.files import Unusable
from marchproxy_core.drops import DropReason
from marchproxy_core.services import ProxyHeader

if TYPE_CHECKING:
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.service import HttpService
    from marchproxy_core.services import Endpoint

_FRESH_S: Final = 1.0
"""How long a connection may be silent and be used without a question, by a request that could be sent again."""


@final
class Http2Pool:
    """The connections of this worker to one backend of one service; as ``Pool`` to whoever asks."""

    def __init__(self, service: HttpService, endpoint: Endpoint, cell: int) -> None:
        """Have none yet; arguments as for ``Pool``."""
        self.service = service
        self.endpoint = endpoint
        self.cell = cell
        self.name = str(endpoint)
        self.quoted = f'"{endpoint}"'
        self._all: list[Http2BackendConnection] = []
        """In the order of their making: the first ones are filled first, so that the last ones become idle."""
        self._connecting: set[Http2BackendConnection] = set()
        self._waiting: deque[Exchange] = deque()
        self.most_streams = UNTIL_TOLD
        """How many requests at once a connection takes, as the last one was told: h2's servers end a connection on
        which there are more, also before its SETTINGS have come."""
        self.is_closed = False
        """Whether connections close after their last request: the backend is gone, or flushed."""

    def begin(self, exchange: Exchange) -> None:
        """Find a connection for a request, now or later; it is told when there is none to be had."""
        if exchange.prepared.upgrade:
            exchange.backend_lacking(DropReason.UPGRADE_REFUSED, "HTTP/2 has no upgrades")
            return
        verified = verified_by(self.service, self.endpoint, exchange)
        if isinstance(verified, Unusable):
            exchange.backend_lacking(DropReason.BACKEND_TLS_FAILED, f"{verified.where} {verified.what}")
            return
        connection = self._find(exchange, verified)
        if connection is not None:
            connection.begin(exchange)
        elif self._has_place():
            self._connect(exchange, verified)
        elif len(self._waiting) >= self.service.http.max_waiting:
            exchange.backend_lacking(DropReason.POOL_EXHAUSTED, "too many wait for a connection")
        else:
            self._waiting.append(exchange)

    def freed(self, connection: Http2BackendConnection) -> None:
        """Use the room that a connection has for who waits; close it if nobody needs it."""
        while self._waiting and connection.has_room:
            waiting = self._next_waiting()
            if waiting is None:
                break
            if verified_by(self.service, self.endpoint, waiting) == connection.verified:
                connection.begin(waiting)
                continue
            self._waiting.appendleft(waiting)
            if connection.is_idle:
                connection.retire()  # which makes room for the other one
            return
        if connection.is_idle and (self.is_closed or connection.is_for_one or self._has_many_idle()):
            connection.retire()

    def connected(self, connection: Http2BackendConnection) -> None:
        """Take note that a connection stands."""
        self._connecting.discard(connection)

    def forget(self, connection: Http2BackendConnection) -> None:
        """Take note that a connection is closed; who waits may have another."""
        self._connecting.discard(connection)
        if connection in self._all:
            self._all.remove(connection)
        if self._waiting and not self.is_closed:
            waiting = self._next_waiting()
            if waiting is not None:
                self.begin(waiting)

    def stop_waiting(self, exchange: Exchange) -> None:
        """Forget a request that waits no more."""
        if self._waiting and exchange in self._waiting:
            self._waiting.remove(exchange)
        for connection in self._connecting:
            connection.stop_waiting(exchange)

    def look(self, now_s: float) -> None:
        """Close what has been idle for too long, and retire what was verified by terms that are no more."""
        oldest_s = now_s - self.service.carried.settings.backend_pool_timeout
        context = self.service.backend_context
        for connection in tuple(self._all):
            verified = connection.verified
            is_outdated = verified is not None and verified.context is not context
            if is_outdated or (connection.is_idle and connection.idle_since_s < oldest_s):
                connection.retire()

    def close(self) -> None:
        """Close what is idle, and the others after their last request."""
        self.is_closed = True
        for connection in tuple(self._all):
            connection.retire()

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection, not even one being made."""
        return not self._all

    def flush(self) -> None:
        """End everything at once."""
        self.close()
        for connection in tuple(self._all):
            connection.on_flushed()

    def _find(self, exchange: Exchange, verified: Verified | None) -> Http2BackendConnection | None:
        now_s = self.service.loop.now_s
        for connection in tuple(self._all):
            if not connection.has_room or connection.verified != verified:
                continue
            is_sure = not connection.is_idle or (
                exchange.is_repeatable and now_s - connection.heard_s < _FRESH_S
            )
            if is_sure or connection.is_alive():
                return connection
        return None

    def _has_place(self) -> bool:
        """Whether there may be one more connection; one that nobody needs makes room for it."""
        most = self.service.http.max_backend_connections
        if most is None or len(self._all) < most:
            return True
        idle = next((one for one in self._all if one.is_idle), None)
        if idle is None:
            return False
        idle.retire()
        return len(self._all) < most

    def _has_many_idle(self) -> bool:
        most = self.service.carried.settings.backend_pool_size
        return len(self._all) > most and sum(one.is_idle for one in self._all) > most

    def _next_waiting(self) -> Exchange | None:
        while self._waiting:
            exchange = self._waiting.popleft()
            if exchange.pool is self:
                return exchange
        return None

    def _connect(self, exchange: Exchange, verified: Verified | None) -> None:
        service = self.service
        settings = service.carried.settings
        sends_header = service.carried.work.service.proxy_protocol.send is not ProxyHeader.OFF
        try:
            sock = connect(self.endpoint, settings)
            # Many share it: a backend that is gone without a word must not have them wait for TCP to find out.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.write_timeout * 1000))
        except OSError as error:
            tell_failure(exchange, error)
            return
        connection = Http2BackendConnection(
            self, sock, verified, is_for_one=sends_header or not settings.backend_keep_alive
        )
        try:
            service.loop.watch(sock.fileno(), WATCH, connection.on_event)
        except OSError as error:
            connection.closed = True
            sock.close()
            tell_failure(exchange, error)
            return
        self._all.append(connection)
        self._connecting.add(connection)
        connection.start()
        connection.begin(exchange)
