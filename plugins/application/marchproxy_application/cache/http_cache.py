"""The cache of one service in one worker: what to answer, what to ask, what to keep.

It does no I/O and has no clock: who calls it sends what it says, and tells it what came back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from marchproxy_application.cache.answering import answer, whole
from marchproxy_application.cache.answers import Answer, Bypass, Fetch, Forward, Hit, Validate
from marchproxy_application.cache.flights import FAILED_S
from marchproxy_application.cache.freshness import Defaults
from marchproxy_application.cache.invalidation import urls_changed
from marchproxy_application.cache.looking import look_further
from marchproxy_application.cache.saving import Room, Saving
from marchproxy_application.cache.state import State
from marchproxy_application.cache.store import Store
from marchproxy_application.cache.taking import begin, renew
from marchproxy_application.cache.vary import names_of
from marchproxy_application.cache.wishes import SPECIAL

if TYPE_CHECKING:
    from marchproxy_application.cache.messages import Request, UrlKey
    from marchproxy_application.cache.storable import Unstored
    from marchproxy_application.cache.stored import Stored
    from marchproxy_application.http1.fields import Field

_ERRORS = frozenset({500, 502, 503, 504})
"""What stale-if-error is for (RFC 5861, section 4)."""


@final
class HttpCache:
    """Decides.

    Args:
        ttl_s: For how long an answer is fresh that does not say so itself; 0 estimates it by Last-Modified.
        vary: Request fields of which each value has an answer of its own, besides those that Vary names.
        max_bytes: Of all that is stored; what is being stored may take half as much again.
        max_object_bytes: Of one body.
        unreachable_s: For how long a stale answer is used while its backend cannot be reached, if it says nothing else.
    """

    def __init__(
        self,
        *,
        ttl_s: float = 0.0,
        vary: Sequence[bytes] = (),
        max_bytes: int = 64 << 20,
        max_object_bytes: int = 1 << 20,
        unreachable_s: float = 3600.0,
    ) -> None:
        """Begin empty."""
        self._state = State(
            defaults=Defaults(ttl_s=ttl_s, unreachable_s=unreachable_s),
            vary=names_of(vary),
            store=Store(max_bytes),
            room=Room(max_bytes // 2, min(max_object_bytes, max_bytes // 2)),
        )
        self.counters = self._state.counters

    @property
    def size_bytes(self) -> int:
        """About how much memory everything stored takes."""
        return self._state.store.size_bytes

    @property
    def evicted(self) -> int:
        """How many responses had to make room."""
        return self._state.store.evicted

    def __len__(self) -> int:
        return len(self._state.store)

    def look_up(self, request: Request, now_s: float, *, waits: bool = True) -> Answer:
        """Say what to do with a request.

        Args:
            request: Before any of its fields is changed.
            now_s: Seconds since 1970.
            waits: Whether it may wait for another one's answer; false for who has waited long enough.
        """
        method, scheme, host, path, fields = request
        if method not in (b"GET", b"HEAD"):
            self.counters.bypasses += 1
            return Bypass(Forward.METHOD)
        state = self._state
        stored = state.store.find((scheme, host, path), fields)
        special = [field for field in fields if field[0] in SPECIAL]
        if stored is not None and not special and now_s < stored.fresh_until_s:
            self.counters.hits += 1
            return whole(stored, request, now_s)
        return look_further(state, request, stored, special, now_s, waits=waits)

    def is_fresh(self, stored: Stored, now_s: float) -> bool:
        """Whether a request that a plain hit answered can be answered so again; counts it as a hit if so."""
        if now_s < stored.fresh_until_s and self._state.store.has(stored):
            stored.is_used = True
            self.counters.hits += 1
            return True
        return False

    def begin(
        self,
        fetch: Fetch,
        status: int,
        reason: bytes,
        fields: Sequence[Field],
        *,
        request_time_s: float,
        response_time_s: float,
    ) -> Saving | Unstored:
        """Take a backend's final response, other than a 304 to a Validate; returns why it is not to be stored, if not.

        Args:
            fetch: What the look-up said.
            status: Of the response.
            reason: Its reason phrase.
            fields: All of its fields, as the backend sent them.
            request_time_s: When the request was sent, in seconds since 1970.
            response_time_s: When the response's head came.
        """
        return begin(self._state, fetch, status, reason, fields, request_time_s, response_time_s)

    def freshen(
        self, validate: Validate, fields: Sequence[Field], *, request_time_s: float, response_time_s: float
    ) -> Hit:
        """Take a 304 to a Validate: renew what is stored, and answer from it (RFC 9111, section 4.3.4).

        Args:
            validate: What the look-up said.
            fields: All fields of the 304.
            request_time_s: When the request was sent, in seconds since 1970.
            response_time_s: When the response came.
        """
        request = validate.request
        renewed = renew(self._state, validate.stored, request, fields, request_time_s, response_time_s)
        self.counters.renewed += 1
        self._state.settle(validate.flight, renewed, response_time_s)
        return answer(
            renewed,
            request,
            response_time_s,
            validate.cache_status(304, stored=self._state.store.has(renewed)),
        )

    def stale(self, validate: Validate, now_s: float, status: int | None = None) -> Hit | None:
        """Answer from what is stale when a Validate failed, None when that is not allowed.

        After None, a response with a status goes to ``begin``, and none at all to ``abandon``.

        Args:
            validate: What the look-up said.
            now_s: Seconds since 1970.
            status: Of the backend's response; None when none came.
        """
        stored = validate.stored
        if status is None:
            until_s = stored.life.unreachable_until_s
        else:
            until_s = stored.life.error_until_s if status in _ERRORS else now_s
        if now_s >= until_s:
            return None
        stored.spared_until_s = min(now_s + FAILED_S, until_s)
        self._state.flights.end(validate.flight)
        self.counters.hits += 1
        self.counters.stale_hits += 1
        return answer(stored, validate.request, now_s, validate.cache_status(status))

    def abandon(self, fetch: Fetch, now_s: float, *, failed: bool) -> None:
        """Say that a request brought no response.

        Args:
            fetch: What the look-up said.
            now_s: Seconds since 1970.
            failed: The backend's fault: those who wait all ask it themselves. If not, one of them takes over.
        """
        if failed and fetch.flight is not None:
            self._state.flights.remember_vain(fetch.flight.key, now_s + FAILED_S)
        if failed and isinstance(fetch, Validate):
            fetch.stored.spared_until_s = min(now_s + FAILED_S, fetch.stored.life.stale_until_s)
        self._state.flights.end(fetch.flight)

    def invalidate(self, request: Request, status: int, fields: Sequence[Field], now_s: float) -> int:
        """Take the response to a request of any method; returns how many responses it has made unusable.

        Args:
            request: As it was looked up.
            status: Of the response.
            fields: Of the response.
            now_s: Seconds since 1970.
        """
        dropped = 0
        for url in urls_changed(request, status, fields):
            self._state.changes.remember(url, now_s)
            dropped += self._state.store.drop_url(url)
        self.counters.invalidated += dropped
        return dropped

    def purge_url(self, url: UrlKey, now_s: float) -> int:
        """Forget all variants of a URL; returns how many."""
        self._state.changes.remember(url, now_s)
        return self._purged(self._state.store.drop_url(url))

    def purge_prefix(self, host: bytes | None, prefix: bytes, now_s: float) -> int:
        """Forget all URLs of a host whose paths begin so; returns how many responses.

        Args:
            host: As requests name it; None is any.
            prefix: Of paths, of any scheme; ``/`` is all.
            now_s: Seconds since 1970.
        """
        self._state.changes.remember_all(now_s)
        return self._purged(
            self._state.store.drop_where(lambda url: host in (None, url[1]) and url[2].startswith(prefix))
        )

    def purge_all(self, now_s: float) -> int:
        """Forget everything; returns how many responses."""
        return self.purge_prefix(None, b"", now_s)

    def _purged(self, count: int) -> int:
        self.counters.purged += count
        return count
