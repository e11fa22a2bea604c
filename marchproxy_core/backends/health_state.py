"""What is known of one backend of one service, and how each event changes it.

Knows nothing of the other backends: what only the service as a whole can decide is the board's
(``health_board``). Times are seconds of one monotonic clock, the caller's.
"""

from __future__ import annotations

from typing import final

import attrs

from marchproxy_core.model import Health
from marchproxy_core.services import Backend, HealthCheck

_LONGEST_REASON = 200


@attrs.frozen(kw_only=True)
class EjectionPolicy:
    """When connections that fail take a backend out, and for how long."""

    failures: int = 3
    """Connections in a row that fail before a backend is ejected, at least 1."""
    pause_s: float = 5.0
    """Pause of the first ejection; each that follows soon after is twice as long."""
    max_pause_s: float = 60.0
    """Longest pause; a backend that stayed in for as long starts with ``pause_s`` again."""


@attrs.frozen(kw_only=True)
class CheckResult:
    """What one active health check found."""

    ok: bool
    reason: str = ""
    """Why it failed, in a few words; empty when it passed."""
    latency_s: float
    """Time until the answer, or until it failed."""


@final
@attrs.define(eq=False, kw_only=True)
class BackendState:
    """One backend's state machine; changed by the board only."""

    backend: Backend
    check: HealthCheck | None
    policy: EjectionPolicy
    last_check: CheckResult | None = None
    last_error: str = ""
    failures_total: int = 0
    passed_checks: int = 0
    """In a row, since the last failed one or the ejection."""
    failed_checks: int = 0
    """In a row."""
    failed_connections: int = 0
    """In a row, while it took new connections."""
    ejections: int = 0
    """So many that the next pause is ``pause_s`` times 2 to that power."""
    back_at: float | None = None
    """When the pause of an ejection ends; None when it is not ejected."""
    ejected_at: float = 0.0
    _readmitted_at: float = 0.0
    _checked: Health = Health.UNCHECKED
    _why: str = ""

    @classmethod
    def fresh(cls, backend: Backend, check: HealthCheck | None, policy: EjectionPolicy) -> BackendState:
        """Make the state of a backend that nothing is known of; it takes connections."""
        return cls(backend=backend, check=check, policy=policy, why=_why_unchecked(check))

    @property
    def health(self) -> Health:
        """The state in one word: draining before down before ejected before what the checks say."""
        if self.backend.weight == 0:
            return Health.DRAINING
        if self._checked is not Health.DOWN and self.back_at is not None:
            return Health.EJECTED
        return self._checked

    @property
    def reason(self) -> str:
        """Why it is in this state, to be read by people."""
        if self.backend.flush:
            return "it is flushed"
        return "weight is 0" if self.backend.weight == 0 else self._why

    @property
    def takes_new(self) -> bool:
        """Whether new connections may go to it."""
        return self.health in (Health.UNCHECKED, Health.UP)

    def reconfigure(self, backend: Backend, check: HealthCheck | None) -> None:
        """Take over a changed weight or check; what is known of the backend stays.

        Weight 0 ends an ejection: there is nothing to keep away from it. A check that is gone takes its
        verdict with it, or the backend could never come up again.
        """
        if check != self.check:
            self.passed_checks = self.failed_checks = 0
        if check is None and self.check is not None:
            self._checked = Health.UNCHECKED
            self.last_check = None
        if backend.weight == 0:
            self.back_at = None
        if self._checked is Health.UNCHECKED and self.back_at is None:
            self._why = _why_unchecked(check)
        elif backend.weight == 0 and self._checked is Health.UP:
            self._why = "was up before its weight was 0"
        self.backend, self.check = backend, check

    def take_check(self, result: CheckResult) -> None:
        """Count one active check. The first one decides at once; later ones by ``rise`` and ``fall``."""
        check = self.check
        if check is None:
            return
        self.last_check = result
        if result.ok:
            self.passed_checks += 1
            self.failed_checks = 0
            if self._checked is Health.UNCHECKED:
                self._decide(Health.UP, "the first check passed")
            elif self._checked is Health.DOWN and self.passed_checks >= check.rise:
                self._decide(Health.UP, f"{_in_a_row(self.passed_checks, 'check')} passed")
            return
        self._note_error(result.reason)
        self.failed_checks += 1
        self.passed_checks = 0
        if self._checked is Health.UNCHECKED:
            self._decide(Health.DOWN, f"the first check failed: {self.last_error}")
        elif self._checked is Health.UP and self.failed_checks >= check.fall:
            self._decide(Health.DOWN, f"{_in_a_row(self.failed_checks, 'check')} failed: {self.last_error}")

    def take_connection(self, ok: bool, error: str) -> bool:
        """Count one connection of a client; return whether the backend has earned an ejection."""
        if ok:
            if self.takes_new and self.failed_connections:
                self.failed_connections = 0
            return False
        self._note_error(error)
        if not self.takes_new:
            return False
        self.failed_connections += 1
        return self.failed_connections >= self.policy.failures

    def eject(self, now: float) -> None:
        """Keep new connections away for a pause, which doubles with each ejection that follows soon."""
        if now - self._readmitted_at >= self.policy.max_pause_s:
            self.ejections = 0
        # The exponent is bounded: 2.0 ** 1024 is an OverflowError.
        pause_s = min(self.policy.pause_s * 2.0 ** min(self.ejections, 64), self.policy.max_pause_s)
        self.ejections += 1
        self.ejected_at, self.back_at = now, now + pause_s
        self.passed_checks = 0
        failed = _in_a_row(self.failed_connections, "connection")
        self._why = f"{failed} failed: {self.last_error}; out for {pause_s:g} s"

    def readmit(self, now: float, why: str) -> None:
        """End an ejection. The next connection that fails brings the next one."""
        self.back_at = None
        self._readmitted_at = now
        self.failed_connections = self.policy.failures - 1
        self._why = f"readmitted: {why}"

    @property
    def proved_well(self) -> bool:
        """Whether an ejected backend has passed so many checks that it need not wait for its pause to end."""
        return self.back_at is not None and self.check is not None and self.passed_checks >= self.check.rise

    def _decide(self, checked: Health, reason: str) -> None:
        self._checked = checked
        if checked is Health.DOWN:
            self.back_at = None  # the checks have it now; they bring it back
        if self.back_at is None:
            self.failed_connections = 0
            self._why = reason

    def _note_error(self, error: str) -> None:
        self.failures_total += 1
        self.last_error = error[:_LONGEST_REASON] or "no reason given"


def _why_unchecked(check: HealthCheck | None) -> str:
    return "not checked yet" if check else "no health check"


def _in_a_row(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s in a row"
