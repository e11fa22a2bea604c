"""Paths in their normal form (RFC 3986, section 6.2.2): what is matched, and what the backend gets.

Were one form matched and another sent on, `/public/%2e%2e/admin` would be matched as public and answered as admin.
"""

from __future__ import annotations

import re

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ENCODED = re.compile(rb"%(?:[0-9A-Fa-f]{2})?")


def normal(path: bytes) -> bytes:
    """Return a path in normal form; its query stays as it is.

    Letters and digits that were encoded for no reason are decoded, other encodings are in capital letters, a percent
    sign that encodes nothing is encoded, since it could become one that does, and dot segments are gone. An
    encoded slash stays encoded, and a double slash double: to many servers those mean something.

    Args:
        path: Beginning with a slash, with its query if it has one.
    """
    bare, mark, query = path.partition(b"?")
    if b"%" in bare:
        bare = _ENCODED.sub(_simplest, bare)
    if b"/." in bare:
        bare = _without_dots(bare)
    return bare + mark + query


def _simplest(match: re.Match[bytes]) -> bytes:
    if len(match[0]) == 1:
        return b"%25"
    byte = int(match[0][1:], 16)
    return bytes((byte,)) if byte in _UNRESERVED else match[0].upper()


def _without_dots(path: bytes) -> bytes:
    """Remove dot segments, RFC 3986, section 5.2.4."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
