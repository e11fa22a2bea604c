"""Fields behind a request's body (RFC 9110, section 6.5), and which of them a backend gets.

There are servers that take them for fields of the head. So nothing passes that would count for something there: what
says who asks, what is asked for, or how the body is to be read, and what only we may say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from marchproxy_application.http1.fields import Field, HasFields, Kind, as_cgi

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_core.services import HeaderRules

_OF_HEADS = frozenset(
    map(
        as_cgi,
        (
            b"authorization",
            b"cache-control",
            b"cookie",
            b"cookie2",
            b"date",
            b"max-forwards",
            b"origin",
            b"pragma",
            b"range",
            b"referer",
            b"user-agent",
        ),
    )
)
"""RFC 9110, section 6.5.1, by name; and what browsers say of who asks."""
_BEGIN_HEADS = tuple(
    map(as_cgi, (b"accept-", b"access-control-", b"content-", b"if-", b"proxy-", b"sec-", b"x-forwarded-"))
)


@attrs.frozen(eq=False)
class Trailers(HasFields):
    """What came behind a body."""

    fields: list[Field]


def passed_on_behind(trailers: Trailers, owned: frozenset[bytes], rules: HeaderRules) -> list[Field]:
    """Return the trailers that the backend gets.

    Args:
        trailers: As they came.
        owned: Names of fields that only we may set, in small letters, as the client spells them.
        rules: What the service wants done to the head's fields; what it sets or removes there is of nobody else here.
    """
    ruled = {
        as_cgi(name.lower().encode("latin-1")) for name in (*rules.remove, *(name for name, _ in rules.set))
    }
    return [field for field in trailers.fields if field.name not in owned and _may_pass(field, ruled)]


def _may_pass(field: Field, ruled: Iterable[bytes]) -> bool:
    name = as_cgi(field.name)
    return field.kind == Kind.PLAIN and not (
        name in _OF_HEADS or name in ruled or name.startswith(_BEGIN_HEADS)
    )
