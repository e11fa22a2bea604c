"""A worker process: follows the control process's word and runs the loop."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Protocol

import structlog

from marchproxy_core.door import Screen
from marchproxy_core.drops import DropReason
from marchproxy_core.model import Role
from marchproxy_core.relay.carried import Carried
from marchproxy_core.relay.loop import Loop
from marchproxy_core.relay.tcp.pipes import Pipes
from marchproxy_core.relay.tcp.service import TcpService
from marchproxy_core.relay.udp.service import DATAGRAM_BYTES, UdpService
from marchproxy_core.services import Protocol as Transport
from marchproxy_core.workers.ledger import ALL_OPENED
from marchproxy_core.workers.messages import Ask, Doors, Flush, Lend, Retire, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from marchproxy_core.config import Settings
    from marchproxy_core.questions import Question
    from marchproxy_core.services import Endpoint, Service
    from marchproxy_core.workers.child import Worker
    from marchproxy_core.workers.messages import ServiceWork

log = structlog.get_logger()


def main(worker: Worker) -> None:
    """Carry what the control process says until it is gone, or this worker has retired."""
    relay = Relay(worker)
    try:
        relay.run()
    finally:
        relay.close()


class Relayed(Protocol):
    """A service in this worker: accepts clients, and moves their bytes."""

    carried: Carried

    @property
    def active(self) -> int:
        """Number of open connections or flows."""
        ...

    def update(self) -> None:
        """Follow what changed in :attr:`carried`."""
        ...

    def listen(self, sockets: Sequence[tuple[Endpoint, socket.socket]], *, serve_out: bool = False) -> None:
        """Accept from exactly these sockets, which it owns; those not named any more are closed.

        Args:
            sockets: The sockets, each with its address.
            serve_out: Whether those that go away are gone for good, so that who waits in them is served first.
        """
        ...

    def drain(self) -> None:
        """Serve who waits already, then take nobody any more."""
        ...

    def leave(self, taken: set[Endpoint]) -> None:
        """While draining, give up addresses that another service has now."""
        ...

    def close(self, reason: DropReason | None = None) -> None:
        """End everything at once; ``reason`` counts for each connection that is cut."""
        ...


class Relay:
    """All services of this worker; a tier may carry some of them in ways of its own, see :meth:`make`."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.loop = Loop()
        self.pipes = Pipes()
        self._datagram = memoryview(bytearray(DATAGRAM_BYTES))
        self.services: dict[str, Relayed] = {}
        self._lent: dict[int, tuple[Endpoint, socket.socket]] = {}
        self._given: dict[tuple[str, int], socket.socket] = {}
        """Copies of what is lent, one for each service that takes clients from it."""
        self._settings: Settings | None = None
        self._screen: Screen | None = None
        self._opened_before = worker.ledger.mine[ALL_OPENED]
        self._asked_for_successor = False
        self._retired_s: float | None = None

    def run(self) -> None:
        """Run until the channel ends, or the last connection after a retirement."""
        self.loop.watch(self.worker.channel.fileno(), select.EPOLLIN, self._on_word)
        self.loop.on_tick = self._on_tick
        self.loop.run()

    def close(self) -> None:
        """Cut every connection and give everything back."""
        for service in self.services.values():
            # Reset, not closed: half an answer must not look like a whole one.
            service.close(DropReason.DRAIN_TIMEOUT)
        for _, sock in self._lent.values():
            sock.close()
        self.loop.close()
        self.pipes.close()

    def _on_word(self, events: int) -> None:
        del events
        try:
            messages = self.worker.channel.receive()
        except EOFError:
            self.loop.stop()
            return
        for message, descriptor in messages:
            match message:
                case Lend(number=number, endpoint=endpoint):
                    sock = socket.socket(fileno=descriptor)
                    sock.setblocking(False)  # else its copies would make the shared description blocking
                    self._lent[number] = (endpoint, sock)
                case Work():
                    self._apply(message)
                case Doors(rules=rules):
                    self._screen = Screen(rules) if rules else None
                case Flush(services=services):
                    self._flush(services)
                case Retire():
                    self._retire()
                case Ask(ticket=ticket, question=question):
                    self.worker.answer(ticket, self.asked(question))

    def _apply(self, work: Work) -> None:
        # The same object while nothing changed: services look at that to keep their limits' memory.
        settings = self._settings
        if settings is None or work.settings != settings:
            self._settings = settings = work.settings
            self.worker.configure(settings)
        names = {one.service.name for one in work.services}
        for service in self.services.values():
            service.carried.screen = self._screen
        for name in [name for name in self.services if name not in names]:
            self._drop(name)
        for one in work.services:
            self._carry(one, settings)
        self._give_way(work)
        named = {number for one in work.services for number in one.listeners}
        for number in [number for number in self._lent if number not in named]:
            self._lent.pop(number)[1].close()
        self.worker.applied(work.version)

    def _carry(self, work: ServiceWork, settings: Settings) -> None:
        name = work.service.name
        service = self.services.get(name)
        if service is not None and not self.is_same_kind(service.carried.work.service, work.service):
            self._drop(name)
            service = None
        if service is None:
            if work.role is Role.DRAINING:
                return  # a worker that came later has nothing of it
            carried = Carried(self.worker, work, settings)
            carried.screen = self._screen
            service = self.services[name] = self.make(carried)
        else:
            service.carried.update(work, settings)
            service.update()
        if work.role is Role.DRAINING:
            service.drain()
            self._take_back(name, ())
        else:
            taken = work.listeners if work.role.takes_new else ()
            self._give(service, name, taken, serve_out=work.role.takes_new)

    def _give_way(self, work: Work) -> None:
        """Have UDP services that go away leave the addresses that others have now, as when one is renamed."""
        taken = {
            self._lent[number][0]
            for one in work.services
            if one.service.protocol is Transport.UDP
            for number in one.listeners
        }
        for one in work.services:
            service = self.services.get(one.service.name)
            if one.role is Role.DRAINING and service is not None:
                service.leave(taken)

    def make(self, carried: Carried) -> Relayed:
        """Make what carries a service."""
        if carried.work.service.protocol is Transport.TCP:
            return TcpService(self.loop, carried, self.pipes)
        return UdpService(self.loop, carried, self._datagram)

    def is_same_kind(self, before: Service, after: Service) -> bool:
        """Whether what :meth:`make` made for a service can go on with it as it is after a reload."""
        return before.protocol is after.protocol

    def asked(self, question: Question) -> object:
        """Answer what the control process asks, with what JSON can have: None, where nothing is known."""
        del question
        return None

    def look(self) -> None:
        """Called four times a second; for what a tier has to look at."""

    def _give(
        self,
        service: Relayed,
        name: str,
        numbers: tuple[int, ...],
        *,
        serve_out: bool = False,
    ) -> None:
        self._take_back(name, numbers)
        for number in numbers:
            if (name, number) not in self._given:
                self._given[name, number] = self._lent[number][1].dup()
        service.listen(
            [(self._lent[number][0], self._given[name, number]) for number in numbers], serve_out=serve_out
        )

    def _take_back(self, name: str, keeping: tuple[int, ...]) -> None:
        """Forget copies that a service is not to take clients from any more; it closes them itself."""
        for key in [key for key in self._given if key[0] == name and key[1] not in keeping]:
            del self._given[key]

    def _drop(self, name: str) -> None:
        self.services.pop(name).close(DropReason.DRAIN_TIMEOUT)
        self._take_back(name, ())

    def _retire(self) -> None:
        self._retired_s = self.loop.now_s
        for name, service in self.services.items():
            self._give(service, name, ())
        log.info("worker.retired", connections=self._active)

    def _flush(self, services: Mapping[str, frozenset[Endpoint]]) -> None:
        for name, backends in services.items():
            service = self.services.get(name)
            if service is not None:
                service.carried.flush(backends)
                service.update()

    def _on_tick(self) -> None:
        self.worker.beat()
        for service in self.services.values():
            service.carried.look(self.loop.now_s)
        self.look()
        if self._settings is None:
            return
        if self._retired_s is not None:
            late = self.loop.now_s - self._retired_s > self._settings.drain_timeout
            if late:
                for name in tuple(self.services):
                    self._drop(name)
            if late or not self._active:
                self.loop.stop()
        most = self._settings.max_requests_per_worker
        opened = self.worker.ledger.mine[ALL_OPENED] - self._opened_before
        if most and opened >= most and not self._asked_for_successor:
            self._asked_for_successor = True
            self.worker.wants_successor()

    @property
    def _active(self) -> int:
        return sum(service.active for service in self.services.values())
