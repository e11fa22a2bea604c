"""Parts of a stored body (RFC 9110, section 14): one range of bytes.

Of several ranges the whole is sent, as section 14.2 allows: they cost us more than they spare the client.
"""

from __future__ import annotations

import re

_RANGE = re.compile(rb"(?i:bytes)=[ \t]*([0-9]*)-([0-9]*)[ \t]*")
_MOST_DIGITS = 18


class Unsatisfiable(Exception):
    """Nothing of the body is in the range: 416."""


def parse_range(value: bytes, length: int) -> tuple[int, int] | None:
    """Return the first byte of a range and the one behind its last, None when the whole is to be sent.

    Args:
        value: Of the field Range.
        length: Of the whole body, in bytes.

    Raises:
        Unsatisfiable: The body ends before the range begins, or the range is the last 0 bytes.
    """
    match = _RANGE.fullmatch(value)
    if match is None or max(len(match[1]), len(match[2])) > _MOST_DIGITS:
        return None
    if not match[1]:
        return _suffix(match[2], length)
    first = int(match[1])
    last = int(match[2]) if match[2] else length - 1
    if match[2] and last < first:
        return None
    if first >= length:
        raise Unsatisfiable
    return first, min(last + 1, length)


def _suffix(digits: bytes, length: int) -> tuple[int, int] | None:
    if not digits:
        return None
    count = int(digits)
    if not count or not length:
        raise Unsatisfiable
    return max(0, length - count), length
