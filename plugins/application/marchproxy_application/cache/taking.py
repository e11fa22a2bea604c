"""Backends' responses, on their way into the cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from marchproxy_application.cache.answers import Fetch, Validate
from marchproxy_application.cache.dates import format_date
from marchproxy_application.cache.directives import policy_of
from marchproxy_application.cache.flights import FAILED_S, VAIN_S
from marchproxy_application.cache.messages import Request, first_of, make_field, url_of
from marchproxy_application.cache.saving import Saving
from marchproxy_application.cache.storable import Unstored, why_unstored
from marchproxy_application.cache.stored import Stored, kept_fields, make_stored, renewed_fields
from marchproxy_application.cache.vary import Variant, values_of

if TYPE_CHECKING:
    from marchproxy_application.cache.freshness import Life
    from marchproxy_application.cache.state import State
    from marchproxy_application.http1.fields import Field

_PASSING = frozenset({408, 425, 429}) | frozenset(range(500, 600))
"""Statuses that say little of the next answer to the same request."""
_MOST_DIGITS = 18


def begin(
    state: State,
    fetch: Fetch,
    status: int,
    reason: bytes,
    fields: Sequence[Field],
    request_time_s: float,
    response_time_s: float,
) -> Saving | Unstored:
    """Take a response's head; as HttpCache.begin."""
    policy = policy_of(fields)
    life = state.life(status, fields, policy, request_time_s, response_time_s)
    why = why_unstored(fetch.request, status, fields, policy, life, response_time_s)
    length = _length(fields)
    if why is None and length is not None and length > state.room.object_bytes:
        why = Unstored.TOO_LARGE
    if why is not None:
        _pass(state, fetch, status, fields, why, request_time_s, response_time_s)
        return why
    kept = kept_fields(fields, policy.unkept)
    make = partial(
        make_stored,
        _variant(state, fetch.request, kept, life),
        status=status,
        reason=reason,
        fields=kept,
        life=life,
        response_time_s=response_time_s,
    )
    return Saving(state.room, length, partial(_end, state, fetch, make, request_time_s, response_time_s))


def renew(
    state: State,
    stored: Stored,
    request: Request,
    fields: Sequence[Field],
    request_time_s: float,
    response_time_s: float,
) -> Stored:
    """Put a stored response's renewed form in its place, if it is still there and may stay.

    Args:
        state: Of the cache.
        stored: It.
        request: That the response answers.
        fields: Of the response that renews it.
        request_time_s: When the request was sent, in seconds since 1970.
        response_time_s: When the response came.
    """
    own = _renewed(stored, fields, response_time_s)
    ages = [field for field in fields if field.name == b"age"]
    policy = policy_of(own)
    life = state.life(stored.status, (*own, *ages), policy, request_time_s, response_time_s)
    renewed = make_stored(
        _variant(state, request, own, life),
        status=stored.status,
        reason=stored.reason,
        fields=own,
        body=stored.body,
        life=life,
        response_time_s=response_time_s,
    )
    may_stay = state.store.drop(stored) and not state.changes.since(stored.variant.url, request_time_s)
    asked = request._replace(method=b"GET")
    if may_stay and why_unstored(asked, stored.status, own, policy, life, response_time_s) is None:
        state.store.put(renewed)
    return renewed


def _renewed(stored: Stored, fields: Sequence[Field], response_time_s: float) -> list[Field]:
    unkept = policy_of(fields).unkept | policy_of((*stored.fields, *stored.told)).unkept
    kept = kept_fields(fields, unkept)
    if first_of(kept, b"date") is None:
        kept.append(make_field(b"Date", format_date(response_time_s)))
    return renewed_fields(stored, kept)


def _variant(state: State, request: Request, fields: Sequence[Field], life: Life) -> Variant:
    names = state.names_of(fields, life)
    return Variant(url_of(request), names, values_of(names, request.fields))


def _pass(
    state: State,
    fetch: Fetch,
    status: int,
    fields: Sequence[Field],
    why: Unstored,
    request_time_s: float,
    response_time_s: float,
) -> None:
    """Let a response pass that is not stored, and have it count for what is."""
    if fetch.request.method == b"HEAD" and status == 200:
        _hear_head(state, fetch.request, fields, request_time_s, response_time_s)
    if isinstance(fetch, Validate) and status not in _PASSING:
        state.store.drop(fetch.stored)  # the backend's answer is another one now, and not to be kept
    state.not_stored(fetch, why, response_time_s, FAILED_S if status in _PASSING else VAIN_S)


def _hear_head(
    state: State, request: Request, fields: Sequence[Field], request_time_s: float, response_time_s: float
) -> None:
    """Renew what is stored by a response to HEAD, or forget it (RFC 9111, section 4.3.5)."""
    stored = state.store.find(url_of(request), request.fields)
    if stored is None or stored.status != 200:
        return
    for name in (b"etag", b"last-modified", b"content-length"):
        said = first_of(fields, name)
        if said is not None and said != first_of(stored.fields, name):
            state.store.drop(stored)
            return
    renew(state, stored, request, fields, request_time_s, response_time_s)


def _end(
    state: State,
    fetch: Fetch,
    make: partial[Stored],
    request_time_s: float,
    response_time_s: float,
    body: bytes | None,
    why: Unstored | None,
) -> Stored | None:
    """End a Saving."""
    if body is not None and not state.changes.since(url_of(fetch.request), request_time_s):
        stored = make(body=body)
        state.store.put(stored)
        state.counters.stored += 1
        state.settle(fetch.flight, stored, response_time_s)
        return stored
    why = Unstored.INVALIDATED if why is None else why
    state.not_stored(fetch, why, response_time_s, VAIN_S if why is Unstored.TOO_LARGE else FAILED_S)
    return None


def _length(fields: Sequence[Field]) -> int | None:
    value = first_of(fields, b"content-length")
    return int(value) if value is not None and value.isdigit() and len(value) <= _MOST_DIGITS else None
