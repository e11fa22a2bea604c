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
from marchproxy_core.questions import Recall
from marchproxy_core.relay.worker import Relay, Relayed

if TYPE_CHECKING:
    from marchproxy_core.questions import Question
    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.services import Service
    from marchproxy_core.workers.child import Worker


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
                for service in self.services.values():
                    if isinstance(service, HttpService):
                        service.contexts_changed()
        for service in self.services.values():
            if isinstance(service, HttpService):
                service.look(self.loop.now_s)

    def asked(self, question: Question) -> object:
        """Say what became of a request, or forget what is cached."""
        if isinstance(question, Recall):
            return self.access_log.remembered.find(question.request_id)
        service = self.services.get(question.service)
        return service.purge(question) if isinstance(service, HttpService) else 0

    def _on_wake(self) -> None:
        for service in self.services.values():
            if isinstance(service, HttpService):
                service.woken()
