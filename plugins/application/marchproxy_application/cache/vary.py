"""Which of a URL's variants a request is for (RFC 9111, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from marchproxy_application.cache.messages import UrlKey, joined
from marchproxy_application.http1.fields import Field, tokens_of

Names = tuple[bytes, ...]
"""Of request fields, in small letters, sorted, each once."""
Values = tuple[bytes | None, ...]
"""Theirs, in their normal form; None of one that is not there."""


class Variant(NamedTuple):
    """What a stored response answers."""

    url: UrlKey
    names: Names
    """Of the request fields that it varies by."""
    values: Values
    """Theirs."""


_NO_LISTS = frozenset(
    {
        b"authorization",
        b"cookie",
        b"from",
        b"host",
        b"origin",
        b"referer",
        b"user-agent",
        b"proxy-authorization",
    }
)
"""Fields in which a comma is nothing special, so that spaces beside it may mean something."""
_ANY_CASE = frozenset({b"accept-charset", b"accept-encoding", b"accept-language"})
_LONGEST_REMEMBERED = 256


def names_of(names: Iterable[bytes]) -> Names:
    """Return names of fields as they are kept."""
    return tuple(sorted({name.lower() for name in names}))


def varies_by(fields: Sequence[Field]) -> Names | None:
    """Return the names in a response's Vary, None when it says ``*``: no other request is like this one."""
    value = joined(fields, b"vary")
    if value is None:
        return ()
    names = tokens_of(value)
    return None if b"*" in names else names_of(names)


def values_of(names: Names, fields: Sequence[Field]) -> Values:
    """Return a request's values of fields."""
    if not names:
        return ()
    if len(names) == 1:
        return (_value(names[0], [field[1] for field in fields if field[0] == names[0]]),)
    found: dict[bytes, list[bytes]] = {}
    for field in fields:
        if field[0] in names:
            found.setdefault(field[0], []).append(field[1])
    return tuple(_value(name, found.get(name)) for name in names)


def _value(name: bytes, values: list[bytes] | None) -> bytes | None:
    if not values:
        return None
    value = values[0] if len(values) == 1 else b", ".join(values)
    return _known(name, value) if len(value) <= _LONGEST_REMEMBERED else _normal(name, value)


def _normal(name: bytes, value: bytes) -> bytes:
    """Return a value without what makes no difference: spaces beside commas, and capital letters of some fields."""
    if name in _NO_LISTS or b'"' in value:
        return value
    if name in _ANY_CASE:
        value = value.lower()
    return b",".join(each.strip(b" \t") for each in value.split(b","))


_known = lru_cache(2048)(_normal)
