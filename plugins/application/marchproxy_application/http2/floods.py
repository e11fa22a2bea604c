"""How much of what costs us more than it costs its sender a connection may bring. Pure."""

from __future__ import annotations

from typing import final


@final
class Allowance:
    """So many at once, so many a second after that, and more for whoever is owed them."""

    __slots__ = ("_burst", "_left", "_rate", "_seen_s")

    def __init__(self, burst: float, rate: float) -> None:
        """Begin with all of it.

        Args:
            burst: How many at once.
            rate: How many a second.
        """
        self._burst = self._left = burst
        self._rate = rate
        self._seen_s = 0.0

    def take(self, now_s: float) -> bool:
        """Count one; false when that is one too many."""
        if now_s > self._seen_s:
            self._left = min(self._left + self._rate * (now_s - self._seen_s), max(self._burst, self._left))
            self._seen_s = now_s
        self._left -= 1.0
        return self._left >= 0.0

    def earn(self, count: float) -> None:
        """Allow more, up to ten times the burst."""
        self._left = min(self._left + count, 10.0 * self._burst)
