"""A stored response: what of it is kept, its head written once, and how a 304 renews it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from marchproxy_application.cache.dates import format_date, parse_date
from marchproxy_application.cache.freshness import NEVER_S, Life
from marchproxy_application.cache.messages import first_of, make_field
from marchproxy_application.cache.vary import Variant
from marchproxy_application.http1.fields import Field, Kind, tokens_of

_NEVER_KEPT = frozenset({b"age", b"proxy-authentication-info"})
"""Besides those of one connection alone: Age is made for each answer."""
_NEVER_SENT = frozenset({b"surrogate-control"})
"""What ends here, but counts for how long the response is kept."""
_NEVER_RENEWED = frozenset({b"content-encoding", b"content-md5", b"content-range"})
"""What belongs to the stored body, whatever a 304 says (RFC 9111, section 3.2); its length is not kept as a field."""
_OF_BODIES = frozenset(
    {
        b"content-digest",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"digest",
        b"repr-digest",
    }
)
"""What a 304 leaves out (RFC 9110, section 15.4.5)."""
_OBJECT_BYTES = 1024
_FIELD_BYTES = 160
"""About what Python needs for the objects themselves."""


@attrs.define(eq=False, kw_only=True)
class Stored:
    """A response, ready to be sent again. What is sent never changes; a renewed one takes its place.

    Args:
        variant: What it answers.
        status: 200 to 599.
        reason: The reason phrase.
        fields: All that are sent again, with Content-Length; not Age.
        head_lines: The same, as HTTP/1 writes them, each with its CR LF.
        body: All of it.
        life: Its times.
        fresh_until_s: Of ``life``, here to be near.
        told: Fields that are not sent, but say how it is stored.
        etag: As the backend wrote it.
        last_modified_s: None when it did not say.
        date_s: When it was made.
        size_bytes: About what it takes of memory.
        is_used: It was used since room was last looked for.
        spared_until_s: Until when it is used stale without a try, since its backend has just failed.
    """

    variant: Variant
    status: int
    reason: bytes
    fields: tuple[Field, ...]
    head_lines: bytes
    body: bytes
    life: Life
    fresh_until_s: float
    told: tuple[Field, ...]
    etag: bytes | None
    last_modified_s: float | None
    date_s: float
    size_bytes: int
    is_used: bool = False
    spared_until_s: float = NEVER_S
    _unmodified: tuple[tuple[Field, ...], bytes] | None = None

    @property
    def modified_s(self) -> float:
        """When it was last modified, as far as is known (RFC 9111, section 4.3.2)."""
        return self.date_s if self.last_modified_s is None else self.last_modified_s

    def unmodified(self) -> tuple[tuple[Field, ...], bytes]:
        """Return the fields of a 304, and their lines."""
        if self._unmodified is None:
            fields = tuple(field for field in self.fields if field.name not in _OF_BODIES)
            self._unmodified = fields, lines_of(fields)
        return self._unmodified

    def part(self, content_range: bytes, length: int) -> tuple[Field, ...]:
        """Return the fields of a 206.

        Args:
            content_range: What part it is.
            length: Of the part, in bytes.
        """
        kept = (field for field in self.fields if field.name not in (b"content-length", b"content-range"))
        return (
            *kept,
            make_field(b"Content-Range", content_range),
            make_field(b"Content-Length", b"%d" % length),
        )


def make_stored(
    variant: Variant,
    *,
    status: int,
    reason: bytes,
    fields: Sequence[Field],
    body: bytes,
    life: Life,
    response_time_s: float,
) -> Stored:
    """Return a response as it is stored.

    Args:
        variant: What it answers.
        status: 200 to 599.
        reason: The reason phrase.
        fields: Those of ``kept_fields``.
        body: All of it.
        life: Its times.
        response_time_s: When it came; becomes its Date if it has none.
    """
    kept = _sent(fields, status, len(body), response_time_s)
    lines = lines_of(kept)
    date_s = parse_date(first_of(kept, b"date"), response_time_s)
    return Stored(
        variant=variant,
        status=status,
        reason=reason,
        fields=tuple(kept),
        told=tuple(field for field in fields if field.name in _NEVER_SENT),
        head_lines=lines,
        body=body,
        life=life,
        fresh_until_s=life.fresh_until_s,
        etag=first_of(kept, b"etag"),
        last_modified_s=parse_date(first_of(kept, b"last-modified"), response_time_s),
        date_s=response_time_s if date_s is None else date_s,
        size_bytes=_size(variant, kept, lines, body),
    )


def kept_fields(fields: Sequence[Field], unkept: frozenset[bytes]) -> list[Field]:
    """Return a response's fields that may be stored (RFC 9111, section 3.1).

    Args:
        fields: All of them.
        unkept: Names of those that it says are not to be.
    """
    dropped = unkept | _NEVER_KEPT
    for field in fields:
        if field.kind == Kind.CONNECTION:
            dropped |= set(tokens_of(field.value))
    return [field for field in fields if field.kind in (Kind.PLAIN, Kind.VIA) and field.name not in dropped]


def renewed_fields(stored: Stored, fields: Sequence[Field]) -> list[Field]:
    """Return a stored response's fields, renewed by a 304's (RFC 9111, section 3.2).

    Its ETag stays: the 304 answers a request that named this one, whatever the backend has written into it.

    Args:
        stored: What the 304 is about.
        fields: Of the 304, those of ``kept_fields``.
    """
    stays = _NEVER_RENEWED | ({b"etag"} if stored.etag is not None else set())
    new = [field for field in fields if field.name not in stays]
    names = {field.name for field in new}
    return [field for field in (*stored.fields, *stored.told) if field.name not in names] + new


def lines_of(fields: Iterable[Field]) -> bytes:
    """Return fields as HTTP/1 writes them."""
    return b"".join([field.line for field in fields])


def _sent(fields: Sequence[Field], status: int, length: int, response_time_s: float) -> list[Field]:
    """Return what is sent again of kept fields, with a Date (RFC 9110, section 6.6.1) and the length."""
    sent = [field for field in fields if field.name not in _NEVER_SENT and field.name != b"content-length"]
    if first_of(sent, b"date") is None:
        sent.append(make_field(b"Date", format_date(response_time_s)))
    if status != 204:
        sent.append(make_field(b"Content-Length", b"%d" % length))
    return sent


def _size(variant: Variant, fields: list[Field], lines: bytes, body: bytes) -> int:
    key = sum(map(len, variant.url)) + sum(len(value or b"") for value in variant.values)
    return _OBJECT_BYTES + _FIELD_BYTES * len(fields) + key + 3 * len(lines) + len(body)
