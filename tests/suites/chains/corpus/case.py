"""What a case is, and how its bytes are written down."""

from __future__ import annotations

import attrs

HOST = b"Host: a.test"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
"""What nobody may ever see as a request: it stands where only a body, or nothing, is."""
AFTER = b"GET /after HTTP/1.1\r\nHost: a.test\r\n\r\n"
"""An honest request behind another one."""


@attrs.frozen
class Want:
    """A request as RFC 9112 has it read."""

    target: bytes = b"/t"
    method: bytes = b"GET"
    body: bytes = b""
    host: bytes | None = b"a.test"
    """None: the client has named none, so it is for us to say."""


AFTERWARDS = Want(b"/after")


@attrs.frozen
class Case:
    """Bytes of one connection, and all that may be seen in them."""

    name: str
    raw: bytes
    seen: tuple[Want, ...] = ()
    """The requests in it, in order."""
    refused: int | None = None
    """The status that we end with; None: everything was read."""
    cut: Want | None = None
    """A request whose body turns out malformed, or never ends, when its head was sent on long ago."""


def request(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """Write a message."""
    return b"\r\n".join([line, *fields, b"", body])


def get(*fields: bytes, body: bytes = b"") -> bytes:
    """Write a GET with these fields, besides Host."""
    return request(b"GET /t HTTP/1.1", HOST, *fields, body=body)


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """Write a POST with these fields, besides Host."""
    return request(b"POST /t HTTP/1.1", HOST, *fields, body=body)


def chunked(body: bytes) -> bytes:
    """Write a POST whose body comes in chunks, written out."""
    return post(b"Transfer-Encoding: chunked", body=body)


def posted(body: bytes = b"") -> Want:
    """Return what a POST is seen as."""
    return Want(method=b"POST", body=body)


def taken(name: str, raw: bytes, *seen: Want) -> Case:
    """Bytes that are read to their end."""
    return Case(name, raw, seen)


def refused(name: str, raw: bytes, status: int = 400, *before: Want) -> Case:
    """Bytes that are refused, behind these requests; a smuggled one follows, which nobody reads."""
    return Case(name, raw + SMUGGLED, before, status)
