"""What may be asked of a running tier that reads HTTP, besides what its hooks answer; see docs/decisions/0010.

Plain values that go from the admin API through the engine to a tier, and on to its workers. Nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from marchproxy_core.routing.paths import normal

_URL = re.compile(r"(?i:(https?))://([^/?#@\s]+)(/[!-\"$-~]*)?")
_PREFIX = re.compile(r"([^/?#@\s]*)(/[!-\"$-~]*)")
WANT_URL = "a URL as https://example.com/path?query, without user and fragment"
WANT_PREFIX = "a path as /static/, of any host, or as example.com/static/"


@attrs.frozen(kw_only=True)
class Recall:
    """What became of a request that is over."""

    request_id: str


@attrs.frozen(kw_only=True)
class Recalled:
    """What the workers of a tier know of a request."""

    found: Mapping[str, object] | None
    """As the log has it; None where nobody remembers it."""
    silent: int = 0
    """How many workers did not answer in time."""


@attrs.frozen(kw_only=True)
class Purge:
    """Forget responses in a service's cache; with neither ``url`` nor ``prefix``, all of them."""

    service: str
    url: tuple[bytes, bytes, bytes] | None = None
    """Scheme, host as requests name it, path in normal form with its query."""
    host: bytes | None = None
    """Of ``prefix``; None: any."""
    prefix: bytes = b""
    """Of paths in normal form."""


@attrs.frozen(kw_only=True)
class Purged:
    """How many responses the workers of a tier forgot."""

    forgotten: int
    silent: int = 0
    """How many workers did not answer in time: what they have may still be there."""


Question = Recall | Purge


def read_url(text: str) -> tuple[bytes, bytes, bytes]:
    """Read the URL of what is stored.

    Raises:
        ValueError: It is none; the text says what is wanted.
    """
    match = _URL.fullmatch(text) if text.isascii() else None
    if match is None:
        raise ValueError(WANT_URL)
    return match[1].lower().encode(), match[2].lower().encode(), normal((match[3] or "/").encode())


def read_prefix(text: str) -> tuple[bytes | None, bytes]:
    """Read a prefix of paths, with the host that it is about; None: any.

    Raises:
        ValueError: It is none; the text says what is wanted.
    """
    match = _PREFIX.fullmatch(text) if text.isascii() else None
    if match is None:
        raise ValueError(WANT_PREFIX)
    return match[1].lower().encode() or None, normal(match[2].encode())
