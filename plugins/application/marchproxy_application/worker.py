"""A worker process of the application tier: HTTP services by this package's code, all others by the core's relay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, final

from marchproxy_application.access_log import AccessLog
from marchproxy_application.serving.front import Fronts
from marchproxy_application.serving.passing import PassedThrough
from marchproxy_application.serving.service import HttpService
from marchproxy_application.tls.backends import BackendContexts
from marchproxy_application.tls.noise import silence_bad_names
from marchproxy_application.waking import Waker
from marchproxy_core.drops import DropReason
from marchproxy_core.model import Role
from marchproxy_core.questions import Recall
from marchproxy_core.relay.worker import Relay, Relayed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marchproxy_core.config import Settings
    from marchproxy_core.questions import Question
    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.services import Endpoint, Service
    from marchproxy_core.workers.child import Worker
    from marchproxy_core.workers.messages import ServiceWork


def main(worker: Worker) -> None:
    """Carry what the control process says until it is gone, or this worker has retired."""
    silence_bad_names()
    application = Application(worker)
    try:
        application.run()
    finally:
        application.close()


@final
class Application(Relay):
    """All services of this worker."""

    def __init__(self, worker: Worker) -> None:
        """Carry nothing yet."""
        super().__init__(worker)
        speaks = worker.index == 0
        self.fronts = Fronts(self.loop, self.pipes, speaks=speaks)
        self.backend_contexts = BackendContexts(speaks=speaks)
        """For TLS to backends."""
        self._superseded: list[Relayed] = []
        """Services as they were read before a reload: they end what they have."""
        self._look_due_s = 0.0
        self.access_log = AccessLog(self.loop)
        self.waker = Waker(self.loop, self._on_wake)
        """Wakes the loop when another thread has something for a service."""

    def make(self, carried: Carried) -> Relayed:
        """Make what carries a service."""
        service = carried.work.service
        if service.http is not None:
            return HttpService(self, carried)
        return PassedThrough(self, carried) if service.tls is not None else super().make(carried)

    def close(self) -> None:
        """Cut every connection and give everything back."""
        for service in self._superseded:
            service.close(DropReason.DRAIN_TIMEOUT)
        super().close()
        self.waker.close()

    def is_same_kind(self, before: Service, after: Service) -> bool:
        """Whether a service can go on as it is: what is read as HTTP and what is not are two things."""
        return (
            super().is_same_kind(before, after)
            and (before.http is None) is (after.http is None)
            and (before.tls is None or before.http is not None)
            is (after.tls is None or after.http is not None)
        )

    def look(self) -> None:
        """Close what was idle for too long, and look after the files of certificates."""
        if self.loop.now_s >= self._look_due_s:
            self._look_due_s = self.loop.now_s + 1.0
            self.fronts.look()
            if self.backend_contexts.look(time.time()):
                for service in self._http_services():
                    service.contexts_changed()
        for service in self._http_services():
            service.look(self.loop.now_s)
        self._superseded = [service for service in self._superseded if not self._has_ended(service)]

    def asked(self, question: Question) -> object:
        """Say what became of a request, or forget what is cached."""
        if isinstance(question, Recall):
            return self.access_log.remembered.find(question.request_id.encode())
        service = self.services.get(question.service)
        return service.purge(question) if isinstance(service, HttpService) else 0

    def _on_wake(self) -> None:
        for service in self._http_services():
            service.woken()

    def _http_services(self) -> list[HttpService]:
        both = (*self.services.values(), *self._superseded)
        return [service for service in both if isinstance(service, HttpService)]

    def _carry(self, work: ServiceWork, settings: Settings) -> None:
        before = self.services.get(work.service.name)
        if (
            before is not None
            and work.role is not Role.DRAINING
            and not self.is_same_kind(before.carried.work.service, work.service)
        ):
            # Who waits in the queue is for the new way: only what is open goes on in the old one.
            del self.services[work.service.name]
            self._take_back(work.service.name, ())
            before.listen(())
            self._superseded.append(before)
        super()._carry(work, settings)

    def _drop(self, name: str) -> None:
        for service in self._superseded:
            if service.carried.work.service.name == name:
                service.close(DropReason.DRAIN_TIMEOUT)
        super()._drop(name)

    def _flush(self, services: Mapping[str, frozenset[Endpoint]]) -> None:
        super()._flush(services)
        for service in self._superseded:
            flushed = services.get(service.carried.work.service.name)
            if flushed is not None:
                service.carried.flush(flushed)
                service.update()

    @property
    def _active(self) -> int:
        return super()._active + sum(service.active for service in self._superseded)

    def _has_ended(self, service: Relayed) -> bool:
        if service.active:
            return False
        service.close()
        return True
