"""What the cache reads: requests and fields, of whichever version of HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from marchproxy_application.http1.fields import KINDS, Field, Kind

UrlKey = tuple[bytes, bytes, bytes]
"""Scheme, host, path with its query."""


class Request(NamedTuple):
    """A request, as far as a cache asks."""

    method: bytes
    scheme: bytes
    """``http`` or ``https``, as the client used it."""
    host: bytes
    """In small letters, with its port if one was given."""
    path: bytes
    """In normal form (``marchproxy_core.routing.paths.normal``), with its query."""
    fields: Sequence[Field]
    """Those that the backend will get, without those that Connection names: by another field's value, that the backend
    never saw, nothing must be stored."""


def make_field(name: bytes, value: bytes) -> Field:
    """Return a field that no HTTP/1 line was read for: one of our own, or one of HTTP/2.

    Args:
        name: In the letters that it is to be written in.
        value: Without white space around it.
    """
    lower = name.lower()
    return Field(lower, value, KINDS.get(lower, Kind.PLAIN), b"%b: %b\r\n" % (name, value))


def first_of(fields: Sequence[Field], name: bytes) -> bytes | None:
    """Return the value of the first field of a name, None when there is none."""
    for field in fields:
        if field[0] == name:
            return field[1]
    return None


def joined(fields: Sequence[Field], name: bytes) -> bytes | None:
    """Return the values of all fields of a name as one list (RFC 9110, section 5.3), None when there is none."""
    values = [field[1] for field in fields if field[0] == name]
    return b", ".join(values) if values else None


def url_of(request: Request) -> UrlKey:
    """Return what a request's answers are stored by."""
    return request.scheme, request.host, request.path
