"""What a request asks of a cache: its Cache-Control (RFC 9111, section 5.2.1), and whether it is for one at all."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

from marchproxy_application.cache.conditions import CONDITIONS, FOR_BACKENDS
from marchproxy_application.cache.directives import Directives, seconds

if TYPE_CHECKING:
    from marchproxy_application.cache.freshness import Life
    from marchproxy_application.http1.fields import Field

SPECIAL = CONDITIONS | FOR_BACKENDS | {b"cache-control", b"content-length", b"transfer-encoding"}
"""Fields of a request without which a fresh response is simply sent."""


class Use(enum.Enum):
    """How a stored response can be used for a request."""

    AS_IS = enum.auto()
    STALE = enum.auto()
    """Once it is validated, or as it allows itself."""
    REFUSED = enum.auto()
    """The client wants it validated, though it may be fresh."""


def is_for_backends(special: Sequence[Field], directives: Directives) -> bool:
    """Whether only a backend can answer, and nobody else may have its answer.

    A body is not part of what is stored, so that one client's could have all others get its answer.

    Args:
        special: Those of a request's fields that are SPECIAL.
        directives: Of its Cache-Control.
    """
    return b"no-store" in directives or any(
        field[0] in FOR_BACKENDS
        or field[0] == b"transfer-encoding"
        or (field[0] == b"content-length" and field[1] != b"0")
        for field in special
    )


def use_of(life: Life, directives: Directives, now_s: float) -> Use:
    """Return how a stored response can be used.

    Args:
        life: Of the response.
        directives: Of the request's Cache-Control.
        now_s: Seconds since 1970.
    """
    fresh_s = life.fresh_until_s - now_s
    if b"no-cache" in directives:
        return Use.REFUSED
    if b"max-age" in directives:
        most_s = seconds(directives[b"max-age"])
        if not most_s or now_s - life.born_s > most_s:
            return Use.REFUSED
    if b"min-fresh" in directives and fresh_s < seconds(directives[b"min-fresh"]):
        return Use.REFUSED
    if fresh_s > 0:
        return Use.AS_IS
    if b"max-stale" in directives and not life.must_validate:
        most = directives[b"max-stale"]
        if most is None or -fresh_s <= seconds(most):
            return Use.AS_IS
    return Use.STALE
