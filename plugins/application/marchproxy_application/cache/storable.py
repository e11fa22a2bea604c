"""Whether a response may be stored by a shared cache (RFC 9111, section 3), and if not, why."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

from marchproxy_application.cache.messages import Request, first_of
from marchproxy_application.cache.vary import varies_by

if TYPE_CHECKING:
    from marchproxy_application.cache.directives import Policy
    from marchproxy_application.cache.freshness import Life
    from marchproxy_application.http1.fields import Field


class Unstored(enum.StrEnum):
    """Why a response is not stored."""

    METHOD = "method"
    STATUS = "status"
    PARTIAL = "partial"
    NO_STORE = "no_store"
    PRIVATE = "private"
    AUTHORIZED = "authorized"
    VARY_STAR = "vary_star"
    NOT_FRESH = "not_fresh"
    """Neither fresh, nor has it anything to validate it by."""
    TOO_LARGE = "too_large"
    BUSY = "busy"
    """Too much is being stored at once."""
    INVALIDATED = "invalidated"
    """Its URL was invalidated or purged after the request was sent."""
    CUT_SHORT = "cut_short"


UNDERSTOOD = frozenset({200, 203, 204, 300, 301, 302, 303, 307, 308})
UNDERSTOOD |= {400, 404, 405, 410, 414, 421, 451, 500, 501, 502, 503, 504}
"""Statuses whose caching we know all about; asked for by must-understand only (section 5.2.2.3)."""


def why_unstored(
    request: Request, status: int, fields: Sequence[Field], policy: Policy, life: Life, response_time_s: float
) -> Unstored | None:
    """Return why a response is not stored, None when it may be.

    Args:
        request: What it answers.
        status: Of the response.
        fields: Of the response.
        policy: What they say.
        life: Its times.
        response_time_s: When it came.
    """
    if request.method != b"GET":
        return Unstored.METHOD
    if status == 206:
        return Unstored.PARTIAL
    if status < 200 or status == 304 or (policy.must_understand and status not in UNDERSTOOD):
        return Unstored.STATUS
    if policy.no_store and not policy.must_understand:
        return Unstored.NO_STORE
    if policy.private:
        return Unstored.PRIVATE
    if not policy.for_everybody and first_of(request.fields, b"authorization") is not None:
        return Unstored.AUTHORIZED
    if varies_by(fields) is None:
        return Unstored.VARY_STAR
    if life.usable_until_s <= response_time_s and not _can_be_validated(fields):
        return Unstored.NOT_FRESH
    return None


def _can_be_validated(fields: Sequence[Field]) -> bool:
    return any(field[0] in (b"etag", b"last-modified") for field in fields)
