"""Dates of HTTP (RFC 9110, section 5.6.7), in all three forms that must be understood."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC, datetime
from functools import lru_cache

_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}
_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS = (
    re.compile(
        rb"[A-Z][a-z]{2}, (?P<day>[0-9]{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>[0-9]{4}) " + _TIME + rb" GMT"
    ),
    re.compile(
        rb"[A-Z][a-z]{5,8}, (?P<day>[0-9]{2})-(?P<month>[A-Z][a-z]{2})-(?P<year>[0-9]{2}) " + _TIME + rb" GMT"
    ),
    re.compile(
        rb"[A-Z][a-z]{2} (?P<month>[A-Z][a-z]{2}) (?P<day>[ 0-9][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})"
    ),
)
_LONGEST = 40
_YEARS_AHEAD = 50
"""A year of two digits that would lie further ahead is one of the past (section 5.6.7)."""


def parse_date(text: bytes | None, now_s: float) -> float | None:
    """Return a date in seconds since 1970, None when it is none.

    Args:
        text: A field's value; None is no date either.
        now_s: Seconds since 1970; tells which century a year of two digits is of.
    """
    if text is None or len(text) > _LONGEST:
        return None
    return _parsed(text, datetime.fromtimestamp(now_s, UTC).year)


def format_date(when_s: float) -> bytes:
    """Return a time, in seconds since 1970, as a field's value; never one that is yet to come."""
    return email.utils.formatdate(int(when_s), usegmt=True).encode()


@lru_cache(1024)
def _parsed(text: bytes, this_year: int) -> float | None:
    match = next((found for form in _FORMS if (found := form.fullmatch(text))), None)
    month = _MONTHS.get(match["month"]) if match else None
    if match is None or month is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += this_year - this_year % 100
        if year > this_year + _YEARS_AHEAD:
            year -= 100
    second = min(int(match["second"]), 59) if match["second"] <= b"60" else 60  # 60 is a leap second
    try:
        return datetime(
            year, month, int(match["day"]), int(match["hour"]), int(match["minute"]), second, tzinfo=UTC
        ).timestamp()
    except ValueError:
        return None
