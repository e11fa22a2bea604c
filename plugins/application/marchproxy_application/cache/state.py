"""What one cache has and counts, and how a request that went to a backend ends in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_application.cache.flights import VAIN_S, Flight, Flights
from marchproxy_application.cache.freshness import Defaults, Life, life_of
from marchproxy_application.cache.invalidation import Changes
from marchproxy_application.cache.saving import Room
from marchproxy_application.cache.storable import Unstored
from marchproxy_application.cache.store import Store
from marchproxy_application.cache.vary import Names, names_of, varies_by

if TYPE_CHECKING:
    from marchproxy_application.cache.answers import Fetch
    from marchproxy_application.cache.directives import Policy
    from marchproxy_application.cache.stored import Stored
    from marchproxy_application.http1.fields import Field

_PERSONAL = (b"authorization", b"cookie")
"""What a request says about who asks. A backend that knows of no caches may have written its answer for him alone."""


@final
@attrs.define
class Counters:
    """What happened since the cache was made; each only grows."""

    hits: int = 0
    """Of them all; the next two are among them."""
    stale_hits: int = 0
    refreshes: int = 0
    """Begun in the background."""
    fetches: int = 0
    validations: int = 0
    renewed: int = 0
    """By a 304."""
    waits: int = 0
    bypasses: int = 0
    stored: int = 0
    unstored: dict[Unstored, int] = attrs.Factory(lambda: dict.fromkeys(Unstored, 0))
    invalidated: int = 0
    purged: int = 0


@final
@attrs.define(eq=False, kw_only=True)
class State:
    """Of one cache; the arguments are those of HttpCache, in parts."""

    defaults: Defaults
    vary: Names
    store: Store
    room: Room
    flights: Flights = attrs.Factory(Flights)
    changes: Changes = attrs.Factory(Changes)
    counters: Counters = attrs.Factory(Counters)

    def names_of(self, fields: Sequence[Field], life: Life) -> Names:
        """Return what a response varies by; Vary must not be ``*``.

        Args:
            fields: Of the response.
            life: Its times.
        """
        own = () if life.is_shared else _PERSONAL
        return names_of((*self.vary, *own, *(varies_by(fields) or ())))

    def life(
        self,
        status: int,
        fields: Sequence[Field],
        policy: Policy,
        request_time_s: float,
        response_time_s: float,
    ) -> Life:
        """Return the times of a response; the arguments are those of ``life_of``."""
        return life_of(
            status,
            fields,
            policy,
            self.defaults,
            request_time_s=request_time_s,
            response_time_s=response_time_s,
        )

    def settle(self, flight: Flight | None, stored: Stored, now_s: float) -> None:
        """End a flight that brought something; those who wait may have to ask themselves."""
        if flight is not None:
            if stored.life.usable_until_s > now_s:
                self.flights.forget_vain(flight.key)
            else:
                self.flights.remember_vain(flight.key, now_s + VAIN_S)
        self.flights.end(flight)

    def not_stored(self, fetch: Fetch, why: Unstored, now_s: float, vain_s: float) -> None:
        """End a fetch that brought nothing for others, so that nobody waits for the next one for a while."""
        self.counters.unstored[why] += 1
        if fetch.flight is not None:
            self.flights.remember_vain(fetch.flight.key, now_s + vain_s)
        self.flights.end(fetch.flight)
