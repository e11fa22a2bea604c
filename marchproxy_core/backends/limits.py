"""Whether one more connection or flow may be opened: counts and rates, per service and over all.

Pure: totals come in as callables that sum the workers' counters, time as seconds of any monotonic clock.
Nothing here is shared between workers; that they see the same totals is what makes their answers agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.services import Service


def default_burst(rate: float) -> float:
    """Return what may come at once under a rate: a second's worth, and one."""
    return rate + 1.0


@final
class LeakyBucket:
    """Holds admissions to ``rate`` a second with bursts up to ``burst``, from the sum over all workers.

    Each worker has a bucket of its own and feeds it the same growing total, so nobody writes to anybody
    else's memory. What others admitted since the last look is taken to have come just now. Hence two laws,
    for workers that see each other's counts:

    - Over any window of t seconds no more than ``burst + rate * t`` is admitted.
    - Traffic that keeps to the rate with bursts of ``burst - rate * gap`` is never refused, ``gap`` being the
      longest time between two looks. A worker that is seldom asked calls :meth:`look` on its heartbeat to
      keep that short.

    Two workers that ask at the same instant may both be admitted on one token: up to one too many per worker.
    """

    def __init__(self, rate: float, burst: float | None = None) -> None:
        """Make an empty bucket.

        Args:
            rate: Admissions a second, more than 0.
            burst: Admissions at once, at least 1; :func:`default_burst` when None.

        Raises:
            ValueError: Out of range.
        """
        self.rate = rate
        self.burst = default_burst(rate) if burst is None else burst
        if not rate > 0 or not self.burst >= 1:
            raise ValueError(f"want a rate above 0 and a burst of at least 1, got {rate} and {self.burst}")
        self._level = 0.0
        self._total: int | None = None
        self._now_s = 0.0

    def look(self, now_s: float, total_opened: int) -> None:
        """Take note of the total without asking for an admission; cheap, for heartbeats."""
        if self._total is None:
            # What came before the first look is not known to have come lately: a worker that replaces another
            # starts empty, since one that starts full would refuse traffic below the rate.
            self._total, self._now_s = total_opened, now_s
            return
        elapsed = max(now_s - self._now_s, 0.0)
        came = max(total_opened - self._total, 0)
        self._level = min(max(self._level - self.rate * elapsed, 0.0) + came, self.burst)
        self._total, self._now_s = total_opened, max(now_s, self._now_s)

    def admits(self, now_s: float, total_opened: int) -> bool:
        """Say whether one more may come; the caller then counts it, and the next total shows it.

        Args:
            now_s: The time in seconds, monotonic.
            total_opened: All admissions so far by all workers; never shrinks.
        """
        self.look(now_s, total_opened)
        return self._level + 1.0 <= self.burst


@final
@attrs.define(eq=False, kw_only=True)
class Limit:
    """A count and a rate over one scope: a service, or everything."""

    active: Callable[[], int]
    """Open connections and flows now, over all workers."""
    opened: Callable[[], int]
    """All that were ever opened, over all workers."""
    max_connections: int | None = None
    bucket: LeakyBucket | None = None
    full: DropReason
    """Reason given when ``max_connections`` are open."""
    fast: DropReason
    """Reason given when they come faster than the bucket takes."""

    @classmethod
    def for_service(
        cls,
        *,
        active: Callable[[], int],
        opened: Callable[[], int],
        max_connections: int | None,
        rate: float | None,
    ) -> Limit:
        """Make a service's limit; None means no limit."""
        return cls(
            active=active,
            opened=opened,
            max_connections=max_connections,
            bucket=LeakyBucket(rate) if rate is not None else None,
            full=DropReason.MAX_CONNECTIONS,
            fast=DropReason.CONNECTION_RATE,
        )

    @classmethod
    def for_all(
        cls,
        *,
        active: Callable[[], int],
        opened: Callable[[], int],
        max_connections: int | None,
        rate: float | None,
    ) -> Limit:
        """Make the limit over all services, one in a worker for all of them; None means no limit."""
        return cls(
            active=active,
            opened=opened,
            max_connections=max_connections,
            bucket=LeakyBucket(rate) if rate is not None else None,
            full=DropReason.GLOBAL_MAX_CONNECTIONS,
            fast=DropReason.GLOBAL_CONNECTION_RATE,
        )

    def refuses(self, now_s: float) -> DropReason | None:
        """Return why one more may not be opened now, None when it may."""
        if self.max_connections is not None and self.active() >= self.max_connections:
            return self.full
        if self.bucket is not None and not self.bucket.admits(now_s, self.opened()):
            return self.fast
        return None

    def look(self, now_s: float) -> None:
        """Let the bucket see the total; on each heartbeat, see :class:`LeakyBucket`."""
        if self.bucket is not None:
            self.bucket.look(now_s, self.opened())


def service_limit(
    service: Service, settings: Settings, *, active: Callable[[], int], opened: Callable[[], int]
) -> Limit:
    """Make the limit that a service has, its own or the settings' for every service.

    Args:
        service: The service.
        settings: For ``SERVICE_MAX_CONNECTIONS`` and ``SERVICE_CONNECTION_RATE``.
        active: The service's open connections and flows now, over all workers.
        opened: All that it ever opened, over all workers.
    """
    own_count, own_rate = service.max_connections, service.connection_rate
    return Limit.for_service(
        active=active,
        opened=opened,
        max_connections=settings.service_max_connections if own_count is None else own_count,
        rate=settings.service_connection_rate if own_rate is None else own_rate,
    )


def global_limit(settings: Settings, *, active: Callable[[], int], opened: Callable[[], int]) -> Limit:
    """Make the limit over all services; of MAX_CONNECTIONS and GLOBAL_MAX_CONNECTIONS the smaller counts.

    Args:
        settings: For these two and ``GLOBAL_CONNECTION_RATE``.
        active: Open connections and flows of all services now, over all workers.
        opened: All that were ever opened, over all workers.
    """
    counts = [
        count for count in (settings.max_connections, settings.global_max_connections) if count is not None
    ]
    return Limit.for_all(
        active=active,
        opened=opened,
        max_connections=min(counts, default=None),
        rate=settings.global_connection_rate,
    )


@final
@attrs.define(eq=False, kw_only=True)
class Limits:
    """What a new connection of one service has to pass."""

    service: Limit
    everything: Limit

    def refuses(self, now_s: float) -> DropReason | None:
        """Return why a new connection is refused at ``now_s`` (seconds, monotonic), None when it is admitted.

        The service's own limit is asked first, so that its reason shows when both are reached. Reads totals
        only where a limit is set.
        """
        return self.service.refuses(now_s) or self.everything.refuses(now_s)
