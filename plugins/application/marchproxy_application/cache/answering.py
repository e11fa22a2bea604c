"""Answers made of a stored response: the whole, a part, or that the client has it already."""

from __future__ import annotations

from marchproxy_application.cache.answers import NAME, Hit, Validate
from marchproxy_application.cache.conditions import is_same_for_range, is_unmodified
from marchproxy_application.cache.messages import Request, first_of, make_field
from marchproxy_application.cache.ranges import Unsatisfiable, parse_range
from marchproxy_application.cache.stored import Stored, lines_of

_REASONS = {206: b"Partial Content", 304: b"Not Modified", 416: b"Range Not Satisfiable"}


def whole(stored: Stored, request: Request, now_s: float, cache_status: bytes | None = None) -> Hit:
    """Return a stored response as it is.

    Args:
        stored: It.
        request: Of GET or HEAD.
        now_s: Seconds since 1970.
        cache_status: None for that of a hit.
    """
    stored.is_used = True
    age_s = int(now_s - stored.life.born_s)
    if cache_status is None:
        cache_status = b"%b; hit; ttl=%d" % (NAME, stored.fresh_until_s - now_s)
    return Hit(
        stored,
        stored.status,
        stored.reason,
        stored.fields,
        stored.head_lines,
        b"" if request[0] == b"HEAD" else stored.body,
        age_s if age_s > 0 else 0,
        cache_status,
    )


def answer(
    stored: Stored,
    request: Request,
    now_s: float,
    cache_status: bytes | None = None,
    refresh: Validate | None = None,
) -> Hit:
    """Return a stored response as the request's preconditions and range want it: 200, 206, 304, 416.

    Args:
        stored: It.
        request: Of GET or HEAD.
        now_s: Seconds since 1970.
        cache_status: None for that of a hit.
        refresh: What goes on in the background.
    """
    hit = whole(stored, request, now_s, cache_status)
    hit.refresh = refresh
    if stored.status != 200:
        return hit
    if is_unmodified(stored, request.fields, now_s):
        hit.fields, hit.head_lines = stored.unmodified()
        hit.status, hit.body = 304, b""
        hit.reason = _REASONS[304]
        return hit
    wanted = first_of(request.fields, b"range") if request.method == b"GET" else None
    if wanted is not None and is_same_for_range(stored, first_of(request.fields, b"if-range"), now_s):
        _cut(hit, wanted)
    return hit


def _cut(hit: Hit, wanted: bytes) -> None:
    """Make a hit the part that is wanted."""
    stored = hit.stored
    length = len(stored.body)
    try:
        part = parse_range(wanted, length)
    except Unsatisfiable:
        hit.fields = (
            make_field(b"Content-Range", b"bytes */%d" % length),
            make_field(b"Content-Length", b"0"),
        )
        hit.status, hit.body = 416, b""
    else:
        if part is None:
            return
        first, end = part
        hit.status, hit.body = 206, stored.body[first:end]
        hit.fields = stored.part(b"bytes %d-%d/%d" % (first, end - 1, length), end - first)
    hit.reason = _REASONS[hit.status]
    hit.head_lines = lines_of(hit.fields)
