"""Preconditions of requests (RFC 9110, section 13), as a cache evaluates and makes them (RFC 9111, section 4.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from marchproxy_application.cache.dates import parse_date
from marchproxy_application.cache.messages import first_of, joined, make_field

if TYPE_CHECKING:
    from marchproxy_application.cache.stored import Stored
    from marchproxy_application.http1.fields import Field

CONDITIONS = frozenset({b"if-none-match", b"if-modified-since", b"if-range", b"range"})
"""What a cache answers by itself; when it validates, it asks in its own words instead."""
FOR_BACKENDS = frozenset({b"if-match", b"if-unmodified-since"})
"""What only a backend can answer."""
_TAG = re.compile(rb'(?:[^",]|"[^"]*"?)+')


def is_unmodified(stored: Stored, fields: Sequence[Field], now_s: float) -> bool:
    """Whether a request already has what is stored, so that 304 is its answer."""
    wanted = joined(fields, b"if-none-match")
    if wanted is not None:
        return _matches(stored.etag, wanted)
    since_s = parse_date(first_of(fields, b"if-modified-since"), now_s)
    return since_s is not None and stored.modified_s <= since_s


def is_same_for_range(stored: Stored, value: bytes | None, now_s: float) -> bool:
    """Whether the client's part is of what is stored, by If-Range (RFC 9110, section 13.1.5); None: he did not ask."""
    if value is None:
        return True
    if value[:1] == b'"':
        return value == stored.etag
    # A date is a strong validator only if it is a minute older than its response (section 8.8.2.2).
    since_s = parse_date(value, now_s)
    return since_s is not None and since_s == stored.last_modified_s and since_s + 60 <= stored.date_s


def validators(stored: Stored) -> tuple[Field, ...]:
    """Return what asks a backend whether a stored response is still its answer; empty when nothing could."""
    asked = []
    if stored.etag is not None:
        asked.append(make_field(b"If-None-Match", stored.etag))
    modified = first_of(stored.fields, b"last-modified")
    if modified is not None and stored.last_modified_s is not None:
        asked.append(make_field(b"If-Modified-Since", modified))
    return tuple(asked)


def _matches(etag: bytes | None, wanted: bytes) -> bool:
    """Compare weakly (RFC 9110, section 8.8.3.2)."""
    if wanted.strip() == b"*":
        return True
    if etag is None:
        return False
    opaque = etag.removeprefix(b"W/")
    return any(each.strip(b" \t").removeprefix(b"W/") == opaque for each in _TAG.findall(wanted))
