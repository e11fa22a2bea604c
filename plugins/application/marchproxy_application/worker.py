"""A worker process of the application tier: HTTP services by this package's code, all others by the core's relay."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from marchproxy_application.access_log import AccessLog
from marchproxy_application.serving.front import Fronts
from marchproxy_application.serving.service import HttpService
from marchproxy_application.waking import Waker
from marchproxy_core.relay.worker import Relay, Relayed

if TYPE_CHECKING:
    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.services import Service
    from marchproxy_core.workers.child import Worker


def main(worker: Worker) -> None:
    """Carry what the control process says until it is gone, or this worker has retired."""
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
        self.fronts = Fronts(self.loop, self.pipes)
        self.access_log = AccessLog(self.loop)
        self.waker = Waker(self.loop, self._on_wake)
        """Wakes the loop when another thread has something for a service."""

    def make(self, carried: Carried) -> Relayed:
        """Make what carries a service."""
        if carried.work.service.http is None:
            return super().make(carried)
        return HttpService(self, carried)

    def close(self) -> None:
        """Cut every connection and give everything back."""
        super().close()
        self.waker.close()

    def is_same_kind(self, before: Service, after: Service) -> bool:
        """Whether a service can go on as it is: what is read as HTTP and what is not are two things."""
        return super().is_same_kind(before, after) and (before.http is None) is (after.http is None)

    def look(self) -> None:
        """Close what was idle for too long."""
        for service in self.services.values():
            if isinstance(service, HttpService):
                service.look(self.loop.now_s)

    def _on_wake(self) -> None:
        for service in self.services.values():
            if isinstance(service, HttpService):
                service.woken()
