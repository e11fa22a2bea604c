"""A relay in this process: what the fake tier really moves bytes with.

Simple before fast: two tasks a connection, one task a UDP flow, backends in turn whatever their weights. On a
wildcard UDP address replies leave from whichever address the kernel picks.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, final

import attrs
import trio

from marchproxy_core.door import Screen
from marchproxy_core.drops import DropReason
from marchproxy_core.model import Assignment, BackendObservation, Role, ServiceStats
from marchproxy_core.services import Endpoint, Protocol

if TYPE_CHECKING:
    from marchproxy_core.model import ServiceTable
    from marchproxy_core.table import Table

_CHUNK_BYTES = 65536
_MOST_FLOWS = 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@final
@attrs.define(eq=False)
class Counters:
    """The counters of one service; written by the trio thread, read by any."""

    opened: int = 0
    active: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    drops: dict[str, int] = attrs.field(factory=dict)

    def drop(self, reason: DropReason) -> None:
        """Count something refused."""
        self.drops[reason.value] = self.drops.get(reason.value, 0) + 1

    def snapshot(self) -> ServiceStats:
        """Return what is counted so far."""
        return ServiceStats(
            connections_opened=self.opened,
            connections_active=self.active,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            packets_in=self.packets_in,
            packets_out=self.packets_out,
            drops=dict(self.drops),
        )


@attrs.define(eq=False)
class Served:
    """One service as it stands: its assignment, whom it accepts from, what is open."""

    assignment: Assignment
    counters: Counters
    accepting: dict[socket.socket, trio.CancelScope] = attrs.field(factory=dict)
    open: dict[trio.CancelScope, tuple[trio.socket.SocketType, ...]] = attrs.field(factory=dict)
    """Connections, and their sockets: the client's, and the backend's once there is one."""
    flows: set[trio.socket.SocketType] = attrs.field(factory=set)
    """UDP sockets that are connected to backends."""
    turns: itertools.count[int] = attrs.field(factory=itertools.count)

    def backends_in_turn(self) -> list[Endpoint]:
        """Where to try a new connection, first to last."""
        views = self.assignment.backends
        willing = [v for v in views if v.takes_new] or [v for v in views if v.backend.weight > 0]
        if not willing:
            return []
        first = next(self.turns) % len(willing)
        return [v.backend.endpoint for v in willing[first:] + willing[:first]]

    def flush(self) -> None:
        """End what flushed backends have: reset connections, and let the next datagram of a flow open another."""
        flushed = {(str(endpoint.ip), endpoint.port) for endpoint in self.assignment.flushed}
        for scope, sockets in self.open.items():
            if sockets[1:] and _peer(sockets[1]) in flushed:
                _reset_on_close(*sockets)
                scope.cancel()
                self.counters.drop(DropReason.FLUSHED)
        for flow in [flow for flow in self.flows if _peer(flow) in flushed]:
            self.flows.discard(flow)
            flow.close()
            self.counters.drop(DropReason.FLUSHED)


@attrs.define(eq=False)
class Relay:
    """Relays for every service of a table, TCP and UDP, until cancelled."""

    counters: dict[str, Counters]
    observe: Callable[[BackendObservation], None]
    screen: Screen = attrs.field(factory=lambda: Screen(()), init=False)
    """The rules at the front door."""
    _served: dict[str, Served] = attrs.field(factory=dict, init=False)

    async def run(self, services: Table[ServiceTable], *, task_status: trio.TaskStatus[None]) -> None:
        """Follow the table; ``started()`` comes once its first value is served."""
        async with trio.open_nursery() as nursery:
            ready = False
            async for table in services.changes():
                self._apply(table, nursery)
                if not ready:
                    task_status.started()
                    ready = True

    def _apply(self, table: ServiceTable, nursery: trio.Nursery) -> None:
        self.screen = Screen(table.door)
        for name in [name for name in self._served if name not in table.assignments]:
            gone = self._served.pop(name)
            for scope in [*gone.accepting.values(), *gone.open]:
                scope.cancel()
        for name, assignment in table.assignments.items():
            served = self._served.get(name)
            if served is None:
                counters = self.counters.setdefault(name, Counters())
                served = self._served[name] = Served(assignment, counters)
            served.assignment = assignment
            served.flush()
            self._listen(served, nursery)

    def _listen(self, served: Served, nursery: trio.Nursery) -> None:
        assignment = served.assignment
        if assignment.role is Role.DRAINING and assignment.service.protocol is Protocol.UDP:
            return  # established flows still arrive there; new ones are refused one by one
        wanted = [sock for listener in assignment.listeners for sock in listener.sockets]
        if not assignment.role.takes_new:
            wanted = []
        for sock in [sock for sock in served.accepting if sock not in wanted]:
            served.accepting.pop(sock).cancel()
        for sock in wanted:
            if sock not in served.accepting:
                scope = served.accepting[sock] = trio.CancelScope()
                # The core closes the sockets, and trio wants one waiting task per descriptor: use a duplicate.
                own = trio.socket.from_stdlib_socket(sock.dup())
                take = self._accept if assignment.service.protocol is Protocol.TCP else self._receive
                nursery.start_soon(take, served, own, scope, nursery)

    async def _accept(
        self,
        served: Served,
        listening: trio.socket.SocketType,
        scope: trio.CancelScope,
        nursery: trio.Nursery,
    ) -> None:
        with scope, listening:
            while True:
                client, address = await listening.accept()
                if self._is_kept_out(served, address):
                    client.close()
                else:
                    nursery.start_soon(self._connection, served, client)

    def _is_kept_out(self, served: Served, client: tuple[object, ...]) -> bool:
        """Ask the rules at the front door, and count who is refused."""
        ip = ipaddress.ip_address(str(client[0]).partition("%")[0])
        if not self.screen.refuses(ip, served.assignment.service.name):
            return False
        served.counters.drop(DropReason.BLOCKED)
        return True

    async def _connection(self, served: Served, client: trio.socket.SocketType) -> None:
        scope = trio.CancelScope()
        served.open[scope] = (client,)
        served.counters.opened += 1
        served.counters.active += 1
        try:
            with client, scope:
                server = await self._connected(served)
                if server is not None:
                    with server:
                        served.open[scope] = (client, server)
                        await self._relay(served.counters, client, server)
        finally:
            served.counters.active -= 1
            del served.open[scope]

    async def _connected(self, served: Served) -> trio.socket.SocketType | None:
        name, endpoints = served.assignment.service.name, served.backends_in_turn()
        for endpoint in endpoints:
            server = trio.socket.socket(_family(endpoint), socket.SOCK_STREAM)
            try:
                await server.connect((str(endpoint.ip), endpoint.port))
            except OSError as error:
                server.close()
                self.observe(BackendObservation(service=name, backend=endpoint, ok=False, error=str(error)))
            except BaseException:
                server.close()
                raise
            else:
                self.observe(BackendObservation(service=name, backend=endpoint, ok=True))
                return server
        served.counters.drop(DropReason.BACKEND_REFUSED if endpoints else DropReason.NO_BACKEND)
        return None

    async def _relay(
        self, counters: Counters, client: trio.socket.SocketType, server: trio.socket.SocketType
    ) -> None:
        def count_in(count: int) -> None:
            counters.bytes_in += count

        def count_out(count: int) -> None:
            counters.bytes_out += count

        async def pump(
            source: trio.socket.SocketType, sink: trio.socket.SocketType, count: Callable[[int], None]
        ) -> None:
            try:
                while data := await source.recv(_CHUNK_BYTES):
                    view = memoryview(data)
                    while view:
                        sent = await sink.send(view)
                        count(sent)
                        view = view[sent:]
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                # One end was reset: so is the other, when both are closed.
                _reset_on_close(client, server)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server, count_in)
            nursery.start_soon(pump, server, client, count_out)

    async def _receive(
        self,
        served: Served,
        listening: trio.socket.SocketType,
        scope: trio.CancelScope,
        nursery: trio.Nursery,
    ) -> None:
        flows: dict[tuple[object, ...], trio.socket.SocketType] = {}
        with scope, listening:
            try:
                while True:
                    data, client = await listening.recvfrom(_CHUNK_BYTES)
                    flow = flows.get(client)
                    if flow is not None and flow.fileno() < 0:
                        flow = None  # its backend was flushed
                    if flow is None and self._is_kept_out(served, client):
                        continue
                    if flow is None and (flow := await self._new_flow(served, len(flows))) is not None:
                        flows[client] = flow
                        served.flows.add(flow)
                        nursery.start_soon(self._answer, served, flow, listening, client)
                    if flow is not None:
                        await _forward(flow, data, served.counters)
            finally:
                for flow in flows.values():
                    served.flows.discard(flow)
                    flow.close()

    async def _new_flow(self, served: Served, known: int) -> trio.socket.SocketType | None:
        if not served.assignment.role.takes_new:
            return None
        if known >= _MOST_FLOWS:
            served.counters.drop(DropReason.FLOW_TABLE_FULL)
            return None
        for endpoint in served.backends_in_turn():
            flow = trio.socket.socket(_family(endpoint), socket.SOCK_DGRAM)
            await flow.connect((str(endpoint.ip), endpoint.port))
            served.counters.opened += 1
            return flow
        served.counters.drop(DropReason.NO_BACKEND)
        return None

    async def _answer(
        self,
        served: Served,
        flow: trio.socket.SocketType,
        listening: trio.socket.SocketType,
        client: tuple[object, ...],
    ) -> None:
        served.counters.active += 1
        try:
            while True:
                try:
                    data = await flow.recv(_CHUNK_BYTES)
                    await listening.sendto(data, client)
                except trio.ClosedResourceError:
                    return
                except OSError:
                    if flow.fileno() < 0 or listening.fileno() < 0:
                        return
                    served.counters.drop(DropReason.BACKEND_REFUSED)  # ICMP said so; the flow may recover
                else:
                    served.counters.bytes_out += len(data)
                    served.counters.packets_out += 1
        finally:
            served.counters.active -= 1


async def _forward(flow: trio.socket.SocketType, data: bytes, counters: Counters) -> None:
    try:
        await flow.send(data)
    except OSError:
        counters.drop(DropReason.SEND_FAILED)
    else:
        counters.bytes_in += len(data)
        counters.packets_in += 1


def _reset_on_close(*sockets: trio.socket.SocketType) -> None:
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def _peer(sock: trio.socket.SocketType) -> tuple[str, int] | None:
    """Return who is at the other end; None when nobody is any more."""
    try:
        host, port, *_ = sock.getpeername()
    except OSError:
        return None
    return str(host), int(port)


def _family(endpoint: Endpoint) -> int:
    return socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET
