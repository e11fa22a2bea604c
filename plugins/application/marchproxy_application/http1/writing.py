"""Heads, written anew from what was read: nothing is passed on that nobody looked at (RFC 9110, section 7.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_application.http1.fields import Field, Kind, read_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from marchproxy_core.services import HeaderRules

CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"


def passed_on(
    fields: Iterable[Field], dropped: frozenset[bytes], rules: HeaderRules | None = None
) -> list[Field]:
    """Return the fields that the other side gets, before those of our own.

    Args:
        fields: As they came.
        dropped: Names that Connection had: of that connection alone.
        rules: What the service wants done to them.
    """
    kept = [field for field in fields if not field.kind and field.name not in dropped]
    if rules is None:
        return kept
    gone = {name.lower().encode("latin-1") for name in (*rules.remove, *(name for name, _ in rules.set))}
    added = [read_field(f"{name}: {value}".encode("latin-1")) for name, value in (*rules.set, *rules.add)]
    return [field for field in kept if field.name not in gone] + added


def lines_of(fields: Iterable[Field]) -> bytes:
    """Return fields as they are written."""
    return b"".join([field.line for field in fields])


def via_line(fields: Iterable[Field], minor: int, name: bytes) -> bytes:
    """Return Via with one more member (RFC 9110, section 7.6.3).

    Args:
        fields: As they came.
        minor: Of the version 1 that they came in; 2 and above stand for that major version.
        name: This proxy's.
    """
    before = [field.value for field in fields if field.kind == Kind.VIA and field.value]
    version = b"1.%d" % minor if minor < 2 else b"%d.0" % minor
    return b"Via: %b\r\n" % b", ".join([*before, b"%b %b" % (version, name)])


def origin_lines(*, client: bytes, scheme: bytes, port: int, host: bytes) -> bytes:
    """Return what a backend is told about where a request came from; a client's own words about it are dropped.

    Args:
        client: His address, without a port.
        scheme: ``http`` or ``https``, as he used it.
        port: That he connected to.
        host: That he asked for.
    """
    node = b'"[%b]"' % client if b":" in client else client
    return (
        b'Forwarded: for=%b;proto=%b;host="%b"\r\n'
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Port: %d\r\n"
    ) % (node, scheme, host, client, scheme, host, port)


def request_start(
    *,
    method: bytes,
    path: bytes,
    host: bytes,
    fields: Sequence[Field],
    length: int | None = None,
    chunked: bool = False,
    upgrade: bytes = b"",
    waits: bool = False,
) -> bytes:
    """Return the first part of a request's head: all that is the same for everybody who sends it.

    Args:
        method: The method.
        path: In normal form, with its query.
        host: For the Host field.
        fields: Those passed on.
        length: For Content-Length; None: none.
        chunked: Whether the body goes in chunks.
        upgrade: The protocol that is asked for; empty: none.
        waits: Whether the sender waits for 100 (Continue).
    """
    parts = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, path, host), lines_of(fields)]
    if chunked:
        parts.append(CHUNKED)
    elif length is not None:
        parts.append(b"Content-Length: %d\r\n" % length)
    if waits:
        parts.append(b"Expect: 100-continue\r\n")
    if upgrade:
        parts.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % upgrade)
    return b"".join(parts)


def status_line(status: int, reason: bytes) -> bytes:
    """Return a status line of HTTP/1.1."""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)
