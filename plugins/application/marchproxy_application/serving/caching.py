"""What the cache has to do with one request: looked up, waited for, fetched, kept, answered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.cache.answers import Bypass, Fetch, GatewayTimeout, Hit, Validate, Wait
from marchproxy_application.cache.messages import Request
from marchproxy_application.cache.saving import Saving
from marchproxy_application.http1.response import ResponseHead
from marchproxy_application.http1.writing import lines_of, passed_on, request_start, status_line
from marchproxy_application.serving.preparing import VIA, LastHit, PreparedAnswer
from marchproxy_core.drops import DropReason
from marchproxy_core.services import HeaderRules
from marchproxy_core.workers.ledger import CACHE

if TYPE_CHECKING:
    from marchproxy_application.cache.flights import Flight
    from marchproxy_application.cache.http_cache import HttpCache
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.serving.preparing import PreparedRequest

_NO_RULES: Final = HeaderRules()
_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})


@final
class Caching:
    """One request of a service that has a cache."""

    __slots__ = ("_cache", "_exchange", "_fetch", "_flight", "_request", "_saving", "_sent_s")

    def __init__(self, exchange: Exchange, cache: HttpCache, fetch: Fetch | None = None) -> None:
        """Look nothing up yet.

        Args:
            exchange: The request.
            cache: Its service's.
            fetch: What the cache wants to be asked in the background; None: a client asks.
        """
        prepared, head = exchange.prepared, exchange.prepared.head
        # What Connection names is not the request's (RFC 9110, section 7.6.1): no answer may vary by it.
        fields = (
            [field for field in head.fields if field.name not in head.dropped]
            if head.dropped
            else head.fields
        )
        self._exchange = exchange
        self._cache = cache
        self._request = Request(exchange.method, exchange.client.scheme, head.host, prepared.path, fields)
        self._fetch: Fetch | None = fetch
        self._flight: Flight | None = None
        self._saving: Saving | None = None
        self._sent_s = 0.0

    def begin(self) -> bool:
        """Look the request up; true when a backend is to be asked, false when it is answered or waits."""
        exchange = self._exchange
        now_s = time.time()
        found = self._cache.look_up(self._request, now_s)
        if type(found) is Hit:
            self._count("stale" if found.refresh is not None else "hit")
            self.answer(found)
            return False
        if isinstance(found, Wait):
            self._flight = found.flight
            found.flight.wait(self._look_again)
            return False
        if isinstance(found, GatewayTimeout):
            exchange.cache_status = _line(found.cache_status)
            exchange.refuse(DropReason.NOT_CACHED)
            return False
        if isinstance(found, Bypass):
            self._count("bypass")
            exchange.cache_status = _line(found.cache_status)
        elif isinstance(found, Fetch):
            self._fetch = found
        return True

    def start_of(self, prepared: PreparedRequest) -> bytes:
        """Return the first part of the head that a backend gets, with what the cache wants to know."""
        self._sent_s = time.time()
        fetch = self._fetch
        if fetch is None:
            return prepared.start
        if not fetch.drops:
            return prepared.start + lines_of(fetch.fields)
        fields = [field for field in prepared.fields if field.name not in fetch.drops]
        start = request_start(
            method=prepared.head.method,
            path=prepared.backend_path,
            host=prepared.host,
            fields=[*fields, *fetch.fields],
        )
        return start + prepared.via

    def heard(self, answer: PreparedAnswer) -> Hit | None:
        """Take the head of a backend's answer; returns what the client gets in its place, if it does."""
        cache, fetch, head = self._cache, self._fetch, answer.head
        now_s = time.time()
        if self._exchange.method not in _SAFE:
            cache.invalidate(self._request, head.status, head.fields, now_s)
        if fetch is None:
            return None
        if isinstance(fetch, Validate):
            if head.status == 304:
                self._fetch = None
                self._count("revalidated")
                return cache.freshen(fetch, head.fields, request_time_s=self._sent_s, response_time_s=now_s)
            hit = cache.stale(fetch, now_s, head.status)
            if hit is not None:
                self._fetch = None
                self._count("stale")
                return hit
        self._count("miss")
        begun = cache.begin(
            fetch,
            head.status,
            head.reason,
            head.fields,
            request_time_s=self._sent_s,
            response_time_s=now_s,
        )
        self._fetch = None
        if isinstance(begun, Saving):
            self._saving = begun
            self._exchange.cache_status = _line(fetch.cache_status(head.status, stored=True))
        else:
            self._exchange.cache_status = _line(fetch.cache_status(head.status, begun))
        return None

    def body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        if self._saving is not None:
            self._saving.add(data)

    def whole(self) -> None:
        """Store what was kept, since the answer is whole."""
        if self._saving is not None:
            self._saving.finish()
            self._saving = None

    def failed(self) -> Hit | None:
        """Say what a client gets whose backend has failed, if there is something stale that may be used."""
        fetch = self._fetch
        if isinstance(fetch, Validate):
            hit = self._cache.stale(fetch, time.time())
            if hit is not None:
                self._fetch = None
                self._count("stale")
                return hit
        return None

    def over(self, *, failed: bool) -> None:
        """Let go: the exchange is over.

        Args:
            failed: Whether the backend is to blame, where there was no answer.
        """
        if self._flight is not None:
            self._flight.leave(self._look_again)
        if self._saving is not None:
            self._saving.abort()
        if self._fetch is not None:
            self._cache.abandon(self._fetch, time.time(), failed=failed)
            self._fetch = None

    def answer(self, hit: Hit) -> None:
        """Answer from the cache; what is to be refreshed is fetched in the background."""
        exchange = self._exchange
        exchange.cache_status = b"Age: %d\r\n%b" % (hit.age_s, _line(hit.cache_status))
        answer, body = exchange.coded_whole(_prepared(hit, exchange.service.http.response_headers), hit.body)
        if hit.status == hit.stored.status and hit.refresh is None and hit.body is hit.stored.body:
            exchange.prepared.last_hit = LastHit(hit.stored, answer, body)
        exchange.answer_from_cache(answer, body)
        if hit.refresh is not None:
            exchange.service.refresh(exchange, hit.refresh)

    def _look_again(self) -> None:
        self._flight = None
        exchange = self._exchange
        if not exchange.is_over and self.begin():
            exchange.find_backend()

    def _count(self, outcome: str) -> None:
        _count(self._exchange, outcome)


def answer_again(exchange: Exchange, cache: HttpCache) -> bool:
    """Answer a request as the last time, if what it was answered with is still fresh and stored.

    The same head asks for the same URL, by the same Vary fields and with the same wishes. So only the time has to be
    looked at, which makes a hit three times as cheap.
    """
    last = exchange.prepared.last_hit
    assert last is not None
    stored = last.stored
    now_s = time.time()
    if not cache.is_fresh(stored, now_s):
        exchange.prepared.last_hit = None
        return False
    _count(exchange, "hit")
    exchange.cache_status = b"Age: %d\r\nCache-Status: marchproxy; hit; ttl=%d\r\n" % (
        max(now_s - stored.life.born_s, 0.0),
        stored.fresh_until_s - now_s,
    )
    exchange.answer_from_cache(last.answer, last.body)
    return True


def _count(exchange: Exchange, outcome: str) -> None:
    exchange.cache_outcome = outcome
    carried = exchange.service.carried
    carried.counts[carried.first_cell + CACHE[outcome]] += 1


def _line(cache_status: bytes) -> bytes:
    return b"Cache-Status: %b\r\n" % cache_status


def _prepared(hit: Hit, rules: HeaderRules) -> PreparedAnswer:
    stored_fields: list[Field] = list(hit.fields)
    fields = stored_fields if rules == _NO_RULES else passed_on(stored_fields, frozenset(), rules)
    lines = hit.head_lines if fields is stored_fields else lines_of(fields)
    via = b"Via: 1.1 %b\r\n" % VIA
    start = status_line(hit.status, hit.reason) + lines + via
    head = ResponseHead(hit.status, hit.reason, 1, fields, length=len(hit.body))
    return PreparedAnswer(
        head=head, fields=fields, start=start, via=via, is_delimited=True, start_chunked=start
    )
