"""Requests that are no plain hit: what the client wants, what is stored, who asks already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from marchproxy_application.cache.answering import answer
from marchproxy_application.cache.answers import (
    Answer,
    Bypass,
    Fetch,
    Forward,
    GatewayTimeout,
    Hit,
    Validate,
    Wait,
)
from marchproxy_application.cache.conditions import CONDITIONS, validators
from marchproxy_application.cache.directives import CAPABILITY, Directives, parse_directives
from marchproxy_application.cache.messages import Request, joined, url_of
from marchproxy_application.cache.vary import Variant, values_of
from marchproxy_application.cache.wishes import Use, is_for_backends, use_of

if TYPE_CHECKING:
    from marchproxy_application.cache.flights import Flight
    from marchproxy_application.cache.state import State
    from marchproxy_application.cache.stored import Stored
    from marchproxy_application.http1.fields import Field


def look_further(
    state: State,
    request: Request,
    stored: Stored | None,
    special: Sequence[Field],
    now_s: float,
    *,
    waits: bool,
) -> Answer:
    """Say what to do with a GET or HEAD.

    Args:
        state: Of the cache.
        request: It.
        stored: What is stored for it, fresh or not.
        special: Those of its fields that are SPECIAL.
        now_s: Seconds since 1970.
        waits: Whether it may wait for another one's answer.
    """
    directives = parse_directives(joined(special, b"cache-control"))
    if is_for_backends(special, directives):
        state.counters.bypasses += 1
        return Bypass(Forward.BYPASS)
    if stored is None:
        return _miss(state, request, special, directives, now_s, waits)
    use = use_of(stored.life, directives, now_s)
    if use is Use.AS_IS or (use is Use.STALE and now_s < stored.spared_until_s):
        return _hit(state, stored, request, now_s)
    if b"only-if-cached" in directives:
        return GatewayTimeout()
    if use is Use.REFUSED:
        return _ask(state, stored, request, Forward.REQUEST, None)
    return _stale(state, stored, request, now_s, waits)


def _stale(state: State, stored: Stored, request: Request, now_s: float, waits: bool) -> Answer:
    key = stored.variant
    flying = state.flights.find(key)
    if now_s < stored.life.stale_until_s:
        refresh = None
        if flying is None:
            state.counters.refreshes += 1
            whole = request._replace(method=b"GET")
            refresh = _validate(state, stored, whole, Forward.STALE, state.flights.start(key))
        return _hit(state, stored, request, now_s, refresh)
    if request.method == b"HEAD" or not waits or state.flights.is_vain(key, now_s):
        return _ask(state, stored, request, Forward.STALE, None)
    if flying is not None:
        state.counters.waits += 1
        return Wait(flying)
    return _validate(state, stored, request, Forward.STALE, state.flights.start(key))


def _miss(
    state: State,
    request: Request,
    special: Sequence[Field],
    directives: Directives,
    now_s: float,
    waits: bool,
) -> Answer:
    if b"only-if-cached" in directives:
        return GatewayTimeout()
    url = url_of(request)
    names = state.store.names_of(url)
    why = Forward.URI_MISS if names is None else Forward.VARY_MISS
    names = state.vary if names is None else names
    key = Variant(url, names, values_of(names, request.fields))
    # What is asked for on a condition, or in part, may have no answer that others could use; and who wants nothing old
    # cannot use theirs.
    is_alone = (
        request.method == b"HEAD"
        or any(field[0] in CONDITIONS for field in special)
        or not directives.keys().isdisjoint((b"no-cache", b"max-age", b"min-fresh"))
    )
    if is_alone or not waits or state.flights.is_vain(key, now_s):
        return _fetch(state, request, why, None)
    flying = state.flights.find(key)
    if flying is not None:
        state.counters.waits += 1
        return Wait(flying)
    return _fetch(state, request, why, state.flights.start(key))


def _hit(
    state: State, stored: Stored, request: Request, now_s: float, refresh: Validate | None = None
) -> Hit:
    state.counters.hits += 1
    if now_s >= stored.fresh_until_s:
        state.counters.stale_hits += 1
    return answer(stored, request, now_s, refresh=refresh)


def _ask(state: State, stored: Stored, request: Request, why: Forward, flight: Flight | None) -> Fetch:
    """Validate, but for HEAD: a backend that has another body now would not send it."""
    if request.method == b"HEAD":
        return _fetch(state, request, why, flight)
    return _validate(state, stored, request, why, flight)


def _fetch(state: State, request: Request, why: Forward, flight: Flight | None) -> Fetch:
    state.counters.fetches += 1
    return Fetch(request, why, flight)


def _validate(
    state: State, stored: Stored, request: Request, why: Forward, flight: Flight | None
) -> Validate:
    state.counters.validations += 1
    return Validate(request, why, flight, (CAPABILITY, *validators(stored)), CONDITIONS, stored=stored)
