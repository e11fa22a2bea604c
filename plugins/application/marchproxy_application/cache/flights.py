"""Requests on their way to a backend that others wait for, and URLs for whose answers it is vain to wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from marchproxy_application.cache.vary import Variant

VAIN_S = 60.0
"""For how long a URL whose answer could not be shared is fetched by everybody at once."""
FAILED_S = 1.0
"""The same after a backend failed, so that those who waited do not find it out one after the other."""
MOST_VAIN = 8192


@final
class Flight:
    """A request that others wait for. It ends once: stored, not storable, or failed."""

    __slots__ = ("has_ended", "key", "waiting")

    def __init__(self, key: Variant) -> None:
        """Take off."""
        self.key = key
        self.waiting: list[Callable[[], None]] = []
        self.has_ended = False

    def wait(self, wake: Callable[[], None]) -> None:
        """Have something called once it ends; who is called looks up again. It must not have ended."""
        self.waiting.append(wake)

    def leave(self, wake: Callable[[], None]) -> None:
        """Wait no longer; nothing happens if it has ended."""
        if wake in self.waiting:
            self.waiting.remove(wake)


@final
class Flights:
    """All of one cache."""

    def __init__(self) -> None:
        """Begin with none."""
        self._flying: dict[Variant, Flight] = {}
        self._vain: OrderedDict[Variant, float] = OrderedDict()

    def find(self, key: Variant) -> Flight | None:
        """Return the one under way."""
        return self._flying.get(key)

    def start(self, key: Variant) -> Flight:
        """Start one; there must be none of this key."""
        flight = self._flying[key] = Flight(key)
        return flight

    def is_vain(self, key: Variant, now_s: float) -> bool:
        """Whether waiting has lately been in vain."""
        until_s = self._vain.get(key)
        if until_s is None:
            return False
        if until_s > now_s:
            return True
        del self._vain[key]
        return False

    def remember_vain(self, key: Variant, until_s: float) -> None:
        """Have nobody wait for answers to this before a time."""
        self._vain[key] = until_s
        self._vain.move_to_end(key)
        if len(self._vain) > MOST_VAIN:
            self._vain.popitem(last=False)

    def forget_vain(self, key: Variant) -> None:
        """Let others wait again."""
        self._vain.pop(key, None)

    def end(self, flight: Flight | None) -> None:
        """End one, and wake who waits; None and one that has ended already are nothing."""
        if flight is None or flight.has_ended:
            return
        flight.has_ended = True
        del self._flying[flight.key]
        waiting, flight.waiting = flight.waiting, []
        for wake in waiting:
            wake()
