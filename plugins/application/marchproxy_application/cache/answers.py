"""What a look-up says, and Cache-Status (RFC 9211) for each answer."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from marchproxy_application.cache.directives import CAPABILITY
from marchproxy_application.cache.flights import Flight
from marchproxy_application.cache.messages import Request
from marchproxy_application.cache.stored import Stored
from marchproxy_application.http1.fields import Field

if TYPE_CHECKING:
    from marchproxy_application.cache.storable import Unstored

NAME = b"marchproxy"


class Forward(enum.Enum):
    """Why a request goes on to a backend, as Cache-Status says it (RFC 9211, section 2.2)."""

    BYPASS = b"bypass"
    METHOD = b"method"
    URI_MISS = b"uri-miss"
    VARY_MISS = b"vary-miss"
    REQUEST = b"request"
    STALE = b"stale"


@attrs.define(eq=False)
class Fetch:
    """Ask the backend; then ``HttpCache.begin``, or ``HttpCache.abandon`` when no response came.

    Args:
        request: What was looked up.
        why: It goes on.
        flight: What others wait for; None when nobody does.
        fields: To be added to the request.
        drops: Names of the request's fields that are left out of it.
    """

    request: Request
    why: Forward
    flight: Flight | None
    fields: tuple[Field, ...] = (CAPABILITY,)
    drops: frozenset[bytes] = frozenset()

    @property
    def collapses(self) -> bool:
        """Whether others may wait for this one."""
        return self.flight is not None

    def cache_status(
        self, status: int | None = None, unstored: Unstored | None = None, *, stored: bool = False
    ) -> bytes:
        """Return the value of Cache-Status for the backend's response.

        Args:
            status: Of it; None when none came.
            unstored: Why it is not stored.
            stored: Whether it is being stored.
        """
        parts = [NAME, b"fwd=" + self.why.value]
        if status is not None:
            parts.append(b"fwd-status=%d" % status)
        if stored:
            parts.append(b"stored")
        if unstored is not None:
            parts.append(b"detail=" + unstored.value.encode())
        return b"; ".join(parts)


@attrs.define(eq=False)
class Validate(Fetch):
    """As Fetch, but something stale is stored: a 304 goes to ``HttpCache.freshen``, an error to ``HttpCache.stale``.

    Args:
        stored: It; ``fields`` ask for its validation, if it has anything to ask by.
    """

    stored: Stored = attrs.field(kw_only=True)


@attrs.define(eq=False)
class Hit:
    """Send this.

    Args:
        stored: Where it comes from.
        status: That of the stored response, or 304, 206, 416.
        reason: The reason phrase.
        fields: To be sent, besides Age and Cache-Status.
        head_lines: The same, as HTTP/1 writes them, each with its CR LF.
        body: To be sent; empty for HEAD.
        age_s: The value of Age, in whole seconds.
        cache_status: The value of Cache-Status.
        refresh: To be done in the background (stale-while-revalidate), as if a request had led to it.
    """

    stored: Stored
    status: int
    reason: bytes
    fields: tuple[Field, ...]
    head_lines: bytes
    body: bytes
    age_s: int
    cache_status: bytes
    refresh: Validate | None = None


@attrs.frozen(eq=False)
class Wait:
    """Somebody asks the backend for this already: wait for his flight, then look up again."""

    flight: Flight


@attrs.frozen(eq=False)
class Bypass:
    """Not for a cache: nothing is stored, nothing is said to it, but ``HttpCache.invalidate`` for unsafe methods."""

    why: Forward

    @property
    def cache_status(self) -> bytes:
        """The value of Cache-Status."""
        return b"%b; fwd=%b" % (NAME, self.why.value)


@attrs.frozen(eq=False)
class GatewayTimeout:
    """Answer 504: the client wants nothing but what is stored (only-if-cached), and there is nothing."""

    cache_status: bytes = NAME + b"; detail=only-if-cached"


Answer = Hit | Validate | Fetch | Wait | Bypass | GatewayTimeout
