"""Limits on requests: of a service as a whole, and of each client. Pure.

The sums over all workers come from the ledger; each client's rate is kept by each worker for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from marchproxy_core.backends.limits import default_burst

_MOST_CLIENTS = 1 << 16


@final
class ClientRates:
    """Holds each client to a rate, with bursts of a second's worth; remembers so many clients, the latest ones."""

    def __init__(self, rate: float, workers: int = 1, most: int = _MOST_CLIENTS) -> None:
        """Know no client.

        Args:
            rate: Requests a second, more than 0.
            workers: Among how many the rate is shared out, since a client's connections are spread over them.
            most: How many clients are remembered.
        """
        self._rate = rate / workers
        self._burst = max(default_burst(rate) / workers, 1.0)
        self._most = most
        self._levels: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def admits(self, client: bytes, now_s: float) -> bool:
        """Say whether a client may ask now, and count it if so."""
        level, seen_s = self._levels.pop(client, (0.0, now_s))
        level = max(level - self._rate * (now_s - seen_s), 0.0)
        admitted = level + 1.0 <= self._burst
        self._levels[client] = (level + 1.0 if admitted else level, now_s)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return admitted


@final
class Budget:
    """How many requests may be tried again: a share of all, so that retries cannot multiply an overload."""

    _MOST = 10.0

    def __init__(self, share: float) -> None:
        """Begin with a few.

        Args:
            share: Of all requests, 0 to 1.
        """
        self.share = share
        self._left = self._MOST if share else 0.0

    def earn(self) -> None:
        """Take note of a request."""
        if self._left < self._MOST:
            self._left += self.share

    def take(self) -> bool:
        """Say whether one more may be tried again, and count it if so."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
