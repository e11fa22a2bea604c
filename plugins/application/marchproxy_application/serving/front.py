"""A listen address in this worker: takes clients, and finds the service of each request among those that share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

from marchproxy_application.http1.refusals import Refusal, Refused
from marchproxy_application.http1.request import RequestHead, read_request
from marchproxy_application.http2.heads import PSEUDO_HEADERS, Header, HeadMemory, read_head, size_of
from marchproxy_application.serving.admitting import Admission
from marchproxy_application.serving.http1_connection import Http1Connection
from marchproxy_application.serving.http2_connection import Http2Connection
from marchproxy_application.serving.passing import PassedThrough
from marchproxy_application.serving.preparing import Memory, PreparedRequest, prepare_request
from marchproxy_application.serving.service import HttpService
from marchproxy_application.serving.terms import Admitter
from marchproxy_application.streams import WATCH
from marchproxy_core.relay.accepting import Acceptor
from marchproxy_core.routing.paths import normal
from marchproxy_core.routing.router import Route, Router

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from socket import SocketType

    from marchproxy_application.serving.client_connection import ClientConnection
    from marchproxy_core.drops import DropReason
    from marchproxy_core.relay.accepting import Address
    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.relay.loop import Loop
    from marchproxy_core.relay.tcp.pipes import Pipes
    from marchproxy_core.services import Endpoint


@attrs.frozen(eq=False)
class Routed:
    """A request's head as it is answered each time that it comes."""

    head: RequestHead
    service: HttpService | None
    """None: no route takes it."""
    prepared: PreparedRequest | None
    is_misdirected: bool = False
    """Whether its host is that of a service whose TLS is passed through, and not for this connection."""


@final
class Front:
    """One listen address, and the clients' connections that came in there."""

    owner: HttpService
    """The service that requests of nobody count for: the one that takes any host, or the first one. Not there, and not
    asked for, where TLS of all services is passed through."""

    def __init__(self, fronts: Fronts, endpoint: Endpoint, first: HttpService | PassedThrough) -> None:
        """Accept nobody yet."""
        self.loop = fronts.loop
        self.pipes = fronts.pipes
        self.endpoint = endpoint
        self.members: dict[HttpService | PassedThrough, list[socket.socket]] = {}
        self.passed: dict[str, PassedThrough] = {}
        """Those services by their names whose TLS is passed through."""
        self.carried: Carried = first.carried
        """The service that connections count for, the owner if there is one."""
        self.admitter = Admitter(endpoint, speaks=fronts.speaks)
        self.connections: set[ClientConnection | Http2Connection] = set()
        self.is_draining = False
        self._router = Router(())
        self._known: Memory[Routed] = Memory()
        self._known_http2: HeadMemory[Routed] = HeadMemory()
        self._acceptor = Acceptor(fronts.loop, first.carried, self._take)

    def join(self, service: HttpService | PassedThrough, sockets: list[socket.socket]) -> None:
        """Have a service's requests come in here.

        Args:
            service: The service.
            sockets: Its copies of the listening sockets, owned here from now on.
        """
        if self.members.get(service) == sockets:
            return
        self.members[service] = sockets
        self._follow()

    def leave(self, service: HttpService | PassedThrough, *, serve_out: bool) -> None:
        """Take no more requests for a service; with the last one, no more clients."""
        gone = self.members.pop(service)
        if not self.members:
            self._acceptor.listen((), serve_out=serve_out)
            self.is_draining = True
        else:
            self._follow()
        # All but those that were accepted from, which the acceptor closes.
        del gone

    def routes_changed(self) -> None:
        """Find requests' services anew."""
        self._known.forget()
        self._known_http2.forget()
        routes = []
        self.admitter.follow(self.members)
        self.passed = {one.name: one for one in self.members if isinstance(one, PassedThrough)}
        for passed in self.passed.values():
            routes += [
                Route(service=passed.name, host=host.encode("latin-1")) for host in passed.hosts or ("*",)
            ]
        self._by_name = {one.name: one for one in self.members if isinstance(one, HttpService)}
        for service in self._by_name.values():
            http = service.http
            hosts = [host.encode("latin-1") for host in http.hosts] or [b"*"]
            routes += [
                Route(service=service.name, host=host, path=path.encode("latin-1"))
                for host in hosts
                for path in http.paths
            ]
        self._router = Router(routes)

    def known(self, block: bytes) -> Routed | None:
        """Return what is known of a request's head that came before."""
        return self._known.get(block)

    def routed(self, block: bytes) -> Routed:
        """Read a request's head, and find its service.

        Raises:
            Refused: It is malformed.
        """
        routed = self.route(read_request(block))
        self._known.keep(block, routed)
        return routed

    def routed_http2(self, headers: tuple[Header, ...], *, is_over: bool) -> Routed:
        """Read the fields of a request of HTTP/2, and find its service.

        Args:
            headers: Pseudo-headers and fields.
            is_over: Whether the stream ended with them.

        Raises:
            Malformed: They are no request.
            Refused: It asks for what is not there, or is too large.
        """
        routed = self._known_http2.get((is_over, headers))
        if routed is None:
            http = self.owner.http
            if len(headers) > http.max_headers + PSEUDO_HEADERS or size_of(headers) > http.max_header_bytes:
                raise Refused(Refusal.HEAD_TOO_LARGE)
            routed = self.route(read_head(headers, is_over=is_over), major=2)
            self._known_http2.keep((is_over, headers), routed)
        return routed

    def service_of(self, server_name: str | None) -> str | None:
        """Return the name of the service that a client's TLS is for, or of one of those; None: of none."""
        host = (server_name or "").encode("latin-1")
        return next((route.service for route in self._router.candidates(host)), None)

    def begin(self, admission: Admission, protocol: str | None) -> None:
        """Have a client ask that has done all that comes before its first request.

        Args:
            admission: That saw to it.
            protocol: By ALPN: ``h2``, ``http/1.1``, or None where there was none.
        """
        make = Http2Connection if protocol == "h2" else Http1Connection
        connection = make(self, admission.sock, admission.peer)
        self.connections.discard(admission)
        self.connections.add(connection)
        self.loop.hand_over(admission.fd, connection.on_event)
        connection.enter(admission)
        if self.is_draining:
            connection.go_away()

    def become_http2(self, connection: Http1Connection, early: bytes) -> None:
        """Have a connection go on in HTTP/2, since it began with the preface (RFC 9113, section 3.3)."""
        other = Http2Connection(self, connection.sock, connection.peer)
        other.take_over(connection)
        self.connections.discard(connection)
        self.connections.add(other)
        self.loop.hand_over(other.fd, other.on_event)
        other.start(early)

    def route(self, head: RequestHead, *, major: int = 1) -> Routed:
        """Find the service of a request whose head was read already."""
        path = head.path if head.path == b"*" else normal(head.path)
        route = self._router.find(head.host, path)
        if route is None or route.service in self.passed:
            return Routed(head, None, None, is_misdirected=route is not None)
        service = self._by_name[route.service]
        prepared = prepare_request(
            head,
            service.http,
            host=route.host,
            prefix=route.path,
            websocket=service.carried.work.service.websocket,
            owned=service.forged(head),
            major=major,
            default_host=str(service.carried.backends[0]).encode() if not head.host else b"",
        )
        return Routed(head, service, prepared)

    def cut(self, reason: DropReason | None) -> None:
        """End all connections at once."""
        for connection in tuple(self.connections):
            connection.cut(reason)

    def go_away(self) -> None:
        """Close the connections that wait for another request; all others are closed after their answer."""
        for connection in tuple(self.connections):
            connection.go_away()

    def _follow(self) -> None:
        self.routes_changed()
        readers = [one for one in self.members if isinstance(one, HttpService)]
        first: HttpService | PassedThrough = next(iter(self.members))
        if readers:
            first = self.owner = next(
                (one for one in readers if not one.http.hosts and one.http.paths == ("/",)), readers[0]
            )
        self.carried = self._acceptor.carried = first.carried
        self._acceptor.listen(self.members[first])
        self.is_draining = False

    def _take(self, sock: SocketType, peer: Address) -> None:
        make = Admission if self.admitter.is_needed else Http1Connection
        connection = make(self, sock, peer)
        self.connections.add(connection)
        connection.start()
        self.loop.watch(connection.fd, WATCH, connection.on_event)


@final
class Fronts:
    """All fronts of this worker."""

    def __init__(self, loop: Loop, pipes: Pipes, *, speaks: bool = True) -> None:
        """Have none.

        Args:
            loop: That everything in them runs on.
            pipes: That they splice through.
            speaks: Whether this worker tells about certificates, which all see.
        """
        self.speaks = speaks
        self.loop = loop
        self.pipes = pipes
        self._by_endpoint: dict[Endpoint, Front] = {}
        self._draining: list[Front] = []

    def listen(
        self,
        service: HttpService | PassedThrough,
        sockets: Sequence[tuple[Endpoint, socket.socket]],
        *,
        serve_out: bool = False,
    ) -> None:
        """Have a service's requests come in from exactly these sockets."""
        wanted: dict[Endpoint, list[socket.socket]] = {}
        for endpoint, sock in sockets:
            wanted.setdefault(endpoint, []).append(sock)
        for endpoint, front in tuple(self._by_endpoint.items()):
            if service in front.members and endpoint not in wanted:
                front.leave(service, serve_out=serve_out)
                if not front.members:
                    del self._by_endpoint[endpoint]
                    self._draining = [one for one in self._draining if one.connections]
                    self._draining.append(front)
                    front.go_away()
        for endpoint, socks in wanted.items():
            found = self._by_endpoint.get(endpoint)
            if found is None:
                found = self._by_endpoint[endpoint] = Front(self, endpoint, service)
            found.join(service, socks)

    def look(self) -> None:
        """Load certificates whose files have changed; call it once a second."""
        for front in self._by_endpoint.values():
            front.admitter.look()

    def routes_changed(self, service: HttpService | PassedThrough) -> None:
        """Find requests' services anew where this one is a member."""
        for front in self._by_endpoint.values():
            if service in front.members:
                front.routes_changed()

    def connections_of(self, service: HttpService) -> int:
        """Return how many connections count for a service."""
        fronts = (*self._by_endpoint.values(), *self._draining)
        return sum(len(front.connections) for front in fronts if front.carried is service.carried)

    def cut(self, service: HttpService | PassedThrough, reason: DropReason | None) -> None:
        """End the connections that count for a service."""
        for front in (*self._by_endpoint.values(), *self._draining):
            if front.carried is service.carried:
                front.cut(reason)
