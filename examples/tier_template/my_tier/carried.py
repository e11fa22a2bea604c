"""Carries one service: accepts from the core's listeners, picks a backend, copies bytes, counts."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

import attrs
import trio

from marchproxy_core.backends import Balancer, Limit, make_balancer, service_limit
from marchproxy_core.config import Settings
from marchproxy_core.drops import DropReason
from marchproxy_core.model import Assignment, BackendObservation, BackendView, Role, ServiceStats
from marchproxy_core.services import Endpoint, Service

CHUNK_BYTES = 65536
CONNECT_DEADLINE_S = 5.0
PAUSE_WITHOUT_DESCRIPTORS_S = 0.1
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@attrs.define(eq=False)
class Counters:
    """What happened for one service; the trio thread writes, others read."""

    opened: int = 0
    active: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    drops: Counter[str] = attrs.field(factory=Counter)
    backend_active: Counter[str] = attrs.field(factory=Counter)

    def snapshot(self) -> ServiceStats:
        """Return what is counted so far."""
        return ServiceStats(
            connections_opened=self.opened,
            connections_active=self.active,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            drops=dict(self.drops),
            backend_active=dict(self.backend_active),
        )


@attrs.frozen(eq=False)
class Held:
    """One connection, from when its backend took it."""

    backend: Endpoint
    client: trio.SocketStream
    server: trio.SocketStream
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def reset(self) -> None:
        """End it, by a reset at both ends."""
        for stream in (self.client, self.server):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.scope.cancel()


@attrs.define(eq=False)
class Carried:
    """One service as the table has it now, and what is open for it."""

    counters: Counters
    observe: Callable[[BackendObservation], None]
    nursery: trio.Nursery
    role: Role = Role.STANDBY
    service: Service | None = None
    backends: tuple[BackendView, ...] = ()
    balancer: Balancer | None = None
    limit: Limit | None = None
    limited_by: tuple[Service, Settings] | None = None
    accepting: dict[socket.socket, trio.CancelScope] = attrs.field(factory=dict)
    connections: set[trio.CancelScope] = attrs.field(factory=set)
    held: set[Held] = attrs.field(factory=set)

    def change(self, assignment: Assignment, settings: Settings) -> None:
        """Take over what the table says; what is established stays, but at backends that are flushed."""
        self.role = assignment.role
        if self.role is not Role.DRAINING:  # then it names no backends, and the last known ones go on
            service, counters = assignment.service, self.counters
            self.service, self.backends = service, assignment.backends
            self.balancer = make_balancer(service.balance, self.backends, start=counters.opened)
            if self.limited_by != (service, settings):  # else kept: a limit remembers who came lately
                self.limited_by = (service, settings)
                self.limit = service_limit(
                    service, settings, active=lambda: counters.active, opened=lambda: counters.opened
                )
            flushed = assignment.flushed
            for held in [held for held in self.held if held.backend in flushed]:
                self.counters.drops[DropReason.FLUSHED] += 1
                held.reset()
        # On standby clients wait in the core's sockets until this tier is chosen.
        lent = assignment.listeners if self.role.takes_new else ()
        wanted = [sock for listener in lent for sock in listener.sockets]
        for sock in self.accepting.keys() - wanted:
            self.accepting.pop(sock).cancel()
        for sock in wanted:
            if sock not in self.accepting:
                self.accepting[sock] = trio.CancelScope()
                # The core closes its sockets when it likes: wait on a duplicate.
                self.nursery.start_soon(self._accept, sock.dup(), self.accepting[sock])

    def cut(self) -> None:
        """End everything that is open."""
        for scope in [*self.accepting.values(), *self.connections]:
            scope.cancel()

    async def _accept(self, listening: socket.socket, scope: trio.CancelScope) -> None:
        with listening:
            with scope:
                while True:
                    await trio.lowlevel.wait_readable(listening)
                    try:
                        self._take_waiting(listening)
                    except OSError as error:
                        if error.errno not in (errno.EMFILE, errno.ENFILE):
                            raise
                        self.counters.drops[DropReason.NO_DESCRIPTORS] += 1
                        await trio.sleep(PAUSE_WITHOUT_DESCRIPTORS_S)
            if self.role is Role.DRAINING:
                self._take_waiting(listening)  # who is still in the queue when it closes would be reset

    def _take_waiting(self, listening: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                client, address = listening.accept()
                client.setblocking(False)
                refused = self.limit.refuses(trio.current_time()) if self.limit else None
                if refused:
                    self.counters.drops[refused] += 1
                    client.close()
                else:
                    self.counters.opened += 1
                    self.counters.active += 1
                    self.nursery.start_soon(self._connection, client, ip_address(address[0]).packed)

    async def _connection(self, sock: socket.socket, key: bytes) -> None:
        scope = trio.CancelScope()
        self.connections.add(scope)
        try:
            with scope:
                async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as client:
                    await self._serve(client, key)
        finally:
            self.connections.discard(scope)
            self.counters.active -= 1

    async def _serve(self, client: trio.SocketStream, key: bytes) -> None:
        """Connect to a backend and copy; try the next one when one refuses."""
        assert self.service is not None
        assert self.balancer is not None
        name, balancer, active = self.service.name, self.balancer, self.counters.backend_active
        endpoints = [view.backend.endpoint for view in self.backends]
        tried: set[int] = set()
        while (index := balancer.pick(lambda i: active[str(endpoints[i])], key, tried)) is not None:
            tried.add(index)
            backend = endpoints[index]
            try:
                with trio.fail_after(CONNECT_DEADLINE_S):
                    server = await trio.open_tcp_stream(str(backend.ip), backend.port)
            except (OSError, trio.TooSlowError) as error:
                self.observe(BackendObservation(service=name, backend=backend, ok=False, error=str(error)))
                continue
            self.observe(BackendObservation(service=name, backend=backend, ok=True))
            active[str(backend)] += 1
            held = Held(backend, client, server)
            self.held.add(held)
            try:
                async with server:
                    with held.scope:
                        await self._copy_both_ways(held)
            finally:
                self.held.discard(held)
                active[str(backend)] -= 1
            return
        self.counters.drops[DropReason.BACKEND_REFUSED if tried else DropReason.NO_BACKEND] += 1

    async def _copy_both_ways(self, held: Held) -> None:
        """Copy until both directions ended; the end of one passes through alone, a reset ends both."""

        def count_in(count: int) -> None:
            self.counters.bytes_in += count

        def count_out(count: int) -> None:
            self.counters.bytes_out += count

        async def copy(
            source: trio.SocketStream, sink: trio.SocketStream, count: Callable[[int], None]
        ) -> None:
            try:
                while data := await source.receive_some(CHUNK_BYTES):
                    await sink.send_all(data)
                    count(len(data))
                await sink.send_eof()
            except trio.BrokenResourceError:
                held.reset()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, held.client, held.server, count_in)
            nursery.start_soon(copy, held.server, held.client, count_out)
