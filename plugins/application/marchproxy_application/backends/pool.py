"""Connections to one backend: those that wait for a request, the last one used first, and who waits for one.

A request takes an idle connection in constant time. Liveness is asked of that one alone: the loop watches all of
them, so one that the backend has closed is gone already, unless it closed it just now.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.backends.beginning import Verified, verified_by
from marchproxy_application.backends.connecting import connect, tell_failure
from marchproxy_application.backends.connection import BackendConnection
from marchproxy_application.streams import WATCH
from marchproxy_application.tls.files import Unusable
from marchproxy_core.drops import DropReason
from marchproxy_core.services import ProxyHeader

if TYPE_CHECKING:
    import ssl

    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.service import HttpService
    from marchproxy_core.services import Endpoint

_MOST_SESSIONS: Final = 64
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
        self._idle: dict[Verified | None, deque[BackendConnection]] = {None: deque()}
        """By whom the backend has proved to be; None: in plain text."""
        self._sessions: dict[Verified, ssl.SSLSession] = {}
        self._waiting: deque[Exchange] = deque()
        self._connecting: dict[Exchange, BackendConnection] = {}
        """Who waits for a connection that is being made for him."""
        self._all: set[BackendConnection] = set()
        self.is_closed = False
        """Whether connections that come back are closed: the backend is gone, or flushed."""

    def begin(self, exchange: Exchange) -> None:
        """Give a request a connection, now or later; it is told when there is none to be had."""
        verified = None
        if self.service.backend_context is not None:
            found = verified_by(self.service, self.endpoint, exchange)
            if isinstance(found, Unusable):
                self._is_unusable(exchange, found)
                return
            verified = found
        idle = self._idle.get(verified)
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
        if self.is_closed or not settings.backend_keep_alive or not self._may_share:
            connection.close()
            return
        verified = connection.verified
        waiting = self._next_waiting()
        if waiting is not None:
            if verified_by(service, self.endpoint, waiting) == verified:
                connection.begin(waiting)
            else:
                self._waiting.appendleft(waiting)
                connection.close()  # which makes room for the other one
        elif sum(map(len, self._idle.values())) >= settings.backend_pool_size:
            connection.close()
        else:
            connection.idle_since_s = service.loop.now_s
            idle = self._idle.get(verified)
            if idle is None:
                idle = self._idle[verified] = deque()
            idle.append(connection)

    def forget(self, connection: BackendConnection) -> None:
        """Take note that a connection is closed; who waits may have another."""
        self._all.discard(connection)
        idle = self._idle.get(connection.verified) if connection.exchange is None else None
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle and connection.verified is not None:
                del self._idle[connection.verified]
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
        context = self.service.backend_context
        for verified, idle in tuple(self._idle.items()):
            is_outdated = verified is not None and verified.context is not context
            while idle and (is_outdated or idle[0].idle_since_s < oldest_s):
                idle.popleft().close()
            if not idle and verified is not None:
                del self._idle[verified]

    def close(self) -> None:
        """Close what is idle, and what comes back."""
        self.is_closed = True
        for idle in self._idle.values():
            while idle:
                idle.popleft().close()

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection, not even one being made."""
        return not self._all

    def flush(self) -> None:
        """End everything at once."""
        self.close()
        for connection in tuple(self._all):
            connection.on_flushed()

    def session_of(self, verified: Verified) -> ssl.SSLSession | None:
        """Return what a handshake can be shortened with."""
        return self._sessions.get(verified)

    def keep_session(self, connection: BackendConnection) -> None:
        """Keep a connection's TLS session for the next ones: its tickets have come by now."""
        verified, secured = connection.verified, connection.secured
        session = secured.sock.session if secured is not None else None
        if verified is not None and session is not None:
            if len(self._sessions) >= _MOST_SESSIONS:
                self._sessions.clear()
            self._sessions[verified] = session

    @property
    def _may_share(self) -> bool:
        """Whether a connection may serve another client: not with a PROXY header, which says whose it is."""
        return self.service.carried.work.service.proxy_protocol.send is ProxyHeader.OFF

    def _is_unusable(self, exchange: Exchange, problem: Unusable) -> None:
        exchange.backend_lacking(DropReason.BACKEND_TLS_FAILED, f"{problem.where} {problem.what}")

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
        verified = verified_by(service, self.endpoint, exchange)
        if isinstance(verified, Unusable):
            self._is_unusable(exchange, verified)
            return
        try:
            sock = connect(self.endpoint, service.carried.settings)
        except OSError as error:
            tell_failure(exchange, error)
            return
        connection = BackendConnection(self, sock, exchange, verified)
        try:
            service.loop.watch(sock.fileno(), WATCH, connection.on_event)
        except OSError as error:
            sock.close()
            tell_failure(exchange, error)
            return
        self._all.add(connection)
        self._connecting[exchange] = connection
        connection.start()
