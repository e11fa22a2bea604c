"""When a key set is fetched next. Pure: the time is given, in seconds of any clock that never goes back."""

from __future__ import annotations

import math
from typing import final

import attrs


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds of the pauses between fetches, in seconds."""

    least_fresh_s: float = 30.0
    most_fresh_s: float = 3600.0
    """However long a sender calls his keys fresh: one that he revoked must not live on for days."""
    want_pause_s: float = 10.0
    """Least time between the start of one fetch and that of another which an unknown key asks for."""
    first_retry_s: float = 1.0
    most_retry_s: float = 60.0


@final
class Schedule:
    """Knows when the next fetch is due."""

    def __init__(self, refresh_s: float, limits: Limits, *, spread: float = 1.0) -> None:
        """Make the first fetch due at once.

        Args:
            refresh_s: The pause after a fetch whose answer does not say how long it is fresh.
            limits: Bounds.
            spread: What pauses are multiplied with, 0.5 to 1, so that workers do not all come at once.
        """
        self._refresh_s = refresh_s
        self._limits = limits
        self._spread = spread
        self._started_s = -math.inf
        self.due_s = -math.inf
        """When the next fetch is to start; infinity while one is under way."""
        self.failures = 0
        """In a row."""

    @property
    def is_fetching(self) -> bool:
        """Whether a fetch is under way."""
        return self.due_s == math.inf

    def start(self, now_s: float) -> None:
        """Note that a fetch starts."""
        self._started_s = now_s
        self.due_s = math.inf

    def succeed(self, now_s: float, max_age_s: float | None) -> float:
        """Note that the fetch brought keys; return the pause."""
        self.failures = 0
        pause_s = self._refresh_s
        if max_age_s is not None:
            # A tenth before the end, so that a slow fetch, or one that fails once, is still in time.
            pause_s = 0.9 * min(max(max_age_s, self._limits.least_fresh_s), self._limits.most_fresh_s)
        return self._pause(now_s, pause_s)

    def fail(self, now_s: float) -> float:
        """Note that the fetch brought none; return the pause, which doubles each time."""
        self.failures += 1
        doublings = min(self.failures - 1, 32)
        return self._pause(now_s, min(self._limits.first_retry_s * 2.0**doublings, self._limits.most_retry_s))

    def want(self, now_s: float) -> bool:
        """Bring the next fetch forward, if it may be; return whether one is under way or due.

        While fetches fail the pauses between them stay as they are.
        """
        if self.is_fetching or self.due_s <= now_s:
            return True
        if self.failures or now_s < self._started_s + self._limits.want_pause_s:
            return False
        self.due_s = now_s
        return True

    def _pause(self, now_s: float, pause_s: float) -> float:
        pause_s *= self._spread
        self.due_s = now_s + pause_s
        return pause_s
