"""The health of every backend of every service: one board, kept by the control process.

Pure: told of checks and connections with the time of each, it answers who may get new connections, and why
not. Whoever runs checks and clocks is ``health_checks``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_core.backends.health_state import BackendState, CheckResult, EjectionPolicy
from marchproxy_core.model import BackendObservation, BackendView, Health
from marchproxy_core.services import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from marchproxy_core.services import Service


@attrs.frozen(kw_only=True)
class HealthChange:
    """One backend went from one state to another, and why."""

    service: str
    backend: Endpoint
    was: Health
    now: Health
    reason: str


@attrs.frozen(kw_only=True)
class BackendRow:
    """One backend as an operator sees it. Times are seconds since 1970, UTC."""

    service: str
    backend: Endpoint
    weight: int
    flush: bool
    health: Health
    reason: str
    """Why it is in this state, to be read by people."""
    since: float
    """When it came into this state."""
    last_check: float | None
    """When the last active check ended; None before the first."""
    last_check_ok: bool | None
    last_check_latency_s: float | None
    last_error: str
    """The last failure of a check or connection; stays when all is well again; empty when there was none."""
    failed_checks: int
    """In a row; 0 when the last one passed."""
    failed_connections: int
    """In a row, as far as they count towards an ejection."""
    failures_total: int
    """Failed checks and failed connections, ever."""


@attrs.define(eq=False, kw_only=True)
class _Entry:
    """A backend's state, and what only the board knows of it."""

    state: BackendState
    shown: Health
    since: float
    last_check: float | None = None
    kept: str = ""
    """Why it was not ejected although it earned it."""


@final
class HealthBoard:
    """The state of each (service, backend); a backend of two services has two.

    Two laws of passive ejection, whatever the order of events: at most half of a service's backends that have
    a weight are ejected, and none is while no other backend of the service takes new connections.

    Not thread-safe: everything is called from the trio thread. ``now`` is always ``trio.current_time()`` or,
    in tests, any clock that does not go back.
    """

    def __init__(
        self,
        services: Iterable[Service] = (),
        *,
        now: float = 0.0,
        policy: EjectionPolicy | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a board.

        Args:
            services: What to keep; as for :meth:`configure`.
            now: The time.
            policy: When backends are ejected; the defaults when None.
            wall_clock: Tells the times of :meth:`rows`, in seconds since 1970.
        """
        self._policy = policy or EjectionPolicy()
        self._wall_clock = wall_clock
        self._services: dict[str, dict[Endpoint, _Entry]] = {}
        self._views: dict[str, tuple[BackendView, ...]] = {}
        self._listener: Callable[[HealthChange], None] | None = None
        self.configure(services, now=now)

    def listen(self, listener: Callable[[HealthChange], None] | None) -> None:
        """Have each change told, in the call that makes it and after the board is consistent again.

        There is one listener, :func:`~marchproxy_core.backends.health_checks.run_health_checks` as a rule.
        """
        self._listener = listener

    def configure(self, services: Iterable[Service], *, now: float) -> None:
        """Replace the services. A backend that stays in its service keeps its state, whatever else changes."""
        old, self._services, self._views = self._services, {}, {}
        changes: list[HealthChange] = []
        for service in services:
            known = old.get(service.name, {})
            entries = self._services[service.name] = {}
            for backend in service.backends:
                entry = known.get(backend.endpoint)
                if entry is None:
                    state = BackendState.fresh(backend, service.health_check, self._policy)
                    entry = _Entry(state=state, shown=state.health, since=self._wall_clock())
                else:
                    entry.state.reconfigure(backend, service.health_check)
                entries[backend.endpoint] = entry
            # Configured changes are the reload's to tell; only what follows from them is told here.
            for entry in entries.values():
                self._show(entry)
            changes += self._relieve(service.name, now)
        self._tell(changes)

    def record_check(self, service: str, backend: Endpoint, result: CheckResult, *, now: float) -> None:
        """Take note of an active check; one of a backend that is gone meanwhile is ignored."""
        entry = self._services.get(service, {}).get(backend)
        if entry is None:
            return
        entry.last_check = self._wall_clock()
        entry.state.take_check(result)
        if entry.state.proved_well:
            entry.state.readmit(now, f"{entry.state.passed_checks} checks passed")
        self._settle(service, entry, now)

    def observe(self, observation: BackendObservation, now: float) -> None:
        """Take note of what became of a client's connection to a backend; unknown backends are ignored."""
        entry = self._services.get(observation.service, {}).get(observation.backend)
        if entry is None:
            return
        state = entry.state
        if not state.take_connection(observation.ok, observation.error):
            if observation.ok and entry.kept:
                entry.kept = ""
            return
        entry.kept = self._why_kept(observation.service, entry)
        if not entry.kept:
            state.eject(now)
            self._settle(observation.service, entry, now)

    def advance(self, now: float) -> None:
        """Readmit every backend whose pause is over."""
        for service, entries in self._services.items():
            for entry in entries.values():
                if entry.state.back_at is not None and entry.state.back_at <= now:
                    entry.state.readmit(now, "its pause is over")
                    self._settle(service, entry, now)

    def next_deadline(self) -> float | None:
        """Return when :meth:`advance` has something to do, None when nothing is due."""
        entries = (entry for entries in self._services.values() for entry in entries.values())
        return min((at for entry in entries if (at := entry.state.back_at) is not None), default=None)

    def views(self, service: str) -> tuple[BackendView, ...]:
        """Return the backends of a service, in its order.

        Raises:
            KeyError: No such service.
        """
        views = self._views.get(service)
        if views is None:
            states = (entry.state for entry in self._services[service].values())
            views = tuple(BackendView(backend=state.backend, health=state.health) for state in states)
            self._views[service] = views
        return views

    def rows(self) -> tuple[BackendRow, ...]:
        """Return everything, by service and backend, in the order of the configuration."""
        return tuple(
            _row(service, entry) for service, entries in self._services.items() for entry in entries.values()
        )

    def _why_kept(self, service: str, entry: _Entry) -> str:
        """Return why a backend that earned its ejection stays in, empty when nothing stands against it."""
        weighted = [other for other in self._services[service].values() if other.state.backend.weight > 0]
        failed = f"kept although {entry.state.failed_connections} connections in a row failed"
        if not any(other.state.takes_new for other in weighted if other is not entry):
            return f"{failed}: no other backend takes new connections"
        ejected = sum(other.state.health is Health.EJECTED for other in weighted)
        if ejected + 1 > len(weighted) // 2:
            return f"{failed}: at most half of the backends are ejected, and {ejected} of {len(weighted)} are"
        return ""

    def _settle(self, service: str, entry: _Entry, now: float) -> None:
        """Bring views and laws in line after one backend may have changed, then tell."""
        was = self._show(entry)
        changes = [_change(service, entry, was)] if was is not None else []
        if changes:
            self._views.pop(service, None)
            changes += self._relieve(service, now)
        self._tell(changes)

    def _relieve(self, service: str, now: float) -> list[HealthChange]:
        """Readmit, longest out first, as many as the laws ask for now that others went down, drained or left."""
        entries = self._services[service].values()
        changes: list[HealthChange] = []
        while True:
            ejected = [entry for entry in entries if entry.state.health is Health.EJECTED]
            if not ejected:
                return changes
            weighted = sum(entry.state.backend.weight > 0 for entry in entries)
            if not any(entry.state.takes_new for entry in entries):
                why = "no other backend takes new connections"
            elif len(ejected) > weighted // 2:
                why = "at most half of the backends are ejected"
            else:
                return changes
            first = min(ejected, key=lambda entry: entry.state.ejected_at)
            first.state.readmit(now, why)
            self._show(first)
            self._views.pop(service, None)
            changes.append(_change(service, first, Health.EJECTED))

    def _show(self, entry: _Entry) -> Health | None:
        """Stamp a change of state; return the state before, None when it is the same."""
        was, health = entry.shown, entry.state.health
        if health is was:
            return None
        entry.shown, entry.since, entry.kept = health, self._wall_clock(), ""
        return was

    def _tell(self, changes: list[HealthChange]) -> None:
        if self._listener is not None:
            for change in changes:
                self._listener(change)


def _change(service: str, entry: _Entry, was: Health) -> HealthChange:
    state = entry.state
    return HealthChange(
        service=service, backend=state.backend.endpoint, was=was, now=state.health, reason=state.reason
    )


def _row(service: str, entry: _Entry) -> BackendRow:
    state = entry.state
    check = state.last_check
    return BackendRow(
        service=service,
        backend=state.backend.endpoint,
        weight=state.backend.weight,
        flush=state.backend.flush,
        health=state.health,
        reason=entry.kept or state.reason,
        since=entry.since,
        last_check=entry.last_check if check else None,
        last_check_ok=check.ok if check else None,
        last_check_latency_s=check.latency_s if check else None,
        last_error=state.last_error,
        failed_checks=state.failed_checks,
        failed_connections=state.failed_connections,
        failures_total=state.failures_total,
    )
