"""One service as this worker carries it: who may come in, which backend is next, what is counted.

Shared by TCP and UDP. Knows nothing of sockets.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, final

import attrs
import structlog

from marchproxy_core.backends.balancing import make_balancer
from marchproxy_core.backends.limits import Limits, global_limit, service_limit
from marchproxy_core.config import LogLevel
from marchproxy_core.drops import DropReason
from marchproxy_core.services import Balance
from marchproxy_core.workers.ledger import (
    ACTIVE,
    ALL_ACTIVE,
    ALL_OPENED,
    DROPS,
    MEMORY_FULL,
    OPENED,
)

if TYPE_CHECKING:
    from collections.abc import Container

    from marchproxy_core.config import Settings
    from marchproxy_core.door import Screen
    from marchproxy_core.services import Endpoint
    from marchproxy_core.workers.child import Worker
    from marchproxy_core.workers.messages import ServiceWork

log = structlog.get_logger()


@final
class Carried:
    """A service in this worker, from its first work to its last connection."""

    def __init__(self, worker: Worker, work: ServiceWork, settings: Settings) -> None:
        self._worker = worker
        self._ledger = worker.ledger
        self.total = worker.ledger.total
        """Sums a cell up over all workers."""
        self.counts = worker.ledger.mine
        """The cells that this worker counts in."""
        self.first_cell = work.cells.first
        self._active_cell = self.first_cell + ACTIVE
        self._opened_cell = self.first_cell + OPENED
        self._suspect: set[Endpoint] = set()
        self.screen: Screen | None = None
        """The rules at the front door; None while there are none."""
        self.work = work
        self._adopt_limits(settings)
        self._adopt_backends()

    def update(self, work: ServiceWork, settings: Settings) -> None:
        """Take note of changed work; a draining service keeps the backends that it had."""
        before, self.work = self.work.service, work
        own_before, own = ((one.max_connections, one.connection_rate) for one in (before, work.service))
        # Limits are kept while they are the same: they remember who came lately.
        if settings is not self.settings or own != own_before:
            self._adopt_limits(settings)
        if work.backends and (work.backends != self._views or work.service.balance is not before.balance):
            self._adopt_backends()

    def flush(self, backends: Container[Endpoint]) -> None:
        """Give these nothing new, as if their flush were in the work: a worker that retires gets no more of it."""
        views = tuple(
            attrs.evolve(view, backend=attrs.evolve(view.backend, weight=0, flush=True))
            if view.backend.endpoint in backends
            else view
            for view in self._views
        )
        self.update(attrs.evolve(self.work, backends=views), self.settings)

    def refuses(self, now_s: float, client: str) -> DropReason | None:
        """Return why a new client, by his address, may not come in now; None when he may."""
        if self.screen is not None and self._is_blocked(self.screen, client):
            return DropReason.BLOCKED
        if self._ledger.regions[0][MEMORY_FULL]:
            return DropReason.MEMORY_LIMIT
        return self._limits.refuses(now_s) if self._limits is not None else None

    def _is_blocked(self, screen: Screen, client: str) -> bool:
        ip = ipaddress.ip_address(client.partition("%")[0])
        return screen.refuses(ip, self.work.service.name)

    def look(self, now_s: float) -> None:
        """Let the rate limits see the totals; once a tick, see ``LeakyBucket``."""
        if self._limits is not None:
            self._limits.service.look(now_s)
            self._limits.everything.look(now_s)

    def pick(self, client: bytes | None, tried: Container[int] = ()) -> int | None:
        """Choose a backend, an index into ``backends``; None when none is left.

        Args:
            client: The client's packed IP address; looked at only when :attr:`by_client`.
            tried: Indexes that were tried in vain.
        """
        return self._balancer.pick(self._active, client, tried)

    def opened(self) -> None:
        """Count a connection or flow that came in."""
        counts = self.counts
        counts[self._opened_cell] += 1
        counts[self._active_cell] += 1
        counts[ALL_OPENED] += 1
        counts[ALL_ACTIVE] += 1

    def closed(self) -> None:
        """Count its end."""
        self.counts[self._active_cell] -= 1
        self.counts[ALL_ACTIVE] -= 1

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count something refused, dropped or cut."""
        self.counts[self.first_cell + DROPS[reason]] += count

    def failed(self, backend: Endpoint, error: str) -> None:
        """Tell the control process that a backend refused or lost a client."""
        self._suspect.add(backend)
        self._worker.observe(self.work.service.name, backend, error=error)

    def worked(self, backend: Endpoint) -> None:
        """Tell it that a backend works; said only after a failure, so it costs nothing as a rule."""
        if self._suspect and backend in self._suspect:
            self._suspect.discard(backend)
            self._worker.observe(self.work.service.name, backend)

    def _adopt_backends(self) -> None:
        work = self.work
        self._views = work.backends
        self.backends = tuple(view.backend.endpoint for view in work.backends)
        self.flushed = frozenset(view.backend.endpoint for view in work.backends if view.backend.flush)
        """Those whose connections and flows are to end."""
        self.backend_cells = tuple(work.cells.active[endpoint] for endpoint in self.backends)
        """For each backend the cell that counts its open connections; whoever opens one counts."""
        self.by_client = work.service.balance is Balance.MAGLEV
        """Whether the choice of a backend depends on who the client is."""
        self._balancer = make_balancer(work.service.balance, work.backends, start=self._worker.index)

    def _adopt_limits(self, settings: Settings) -> None:
        self.settings = settings
        self.tells_all = settings.proxy_debug or settings.log_level is LogLevel.DEBUG
        """Whether anybody reads events of the level debug."""
        total, first = self._ledger.total, self.first_cell
        limits = Limits(
            service=service_limit(
                self.work.service,
                settings,
                active=lambda: total(first + ACTIVE),
                opened=lambda: total(first + OPENED),
            ),
            everything=global_limit(
                settings, active=lambda: total(ALL_ACTIVE), opened=lambda: total(ALL_OPENED)
            ),
        )
        both = (limits.service, limits.everything)
        unlimited = all(one.max_connections is None and one.bucket is None for one in both)
        self._limits = None if unlimited else limits

    def _active(self, index: int) -> int:
        return self._ledger.total(self.backend_cells[index])
