"""Heads, written anew from what was read: nothing is passed on that nobody looked at (RFC 9110, section 7.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from marchproxy_application.http1.fields import Field, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_application.http1.request import RequestHead
    from marchproxy_application.http1.response import ResponseHead


@attrs.frozen(kw_only=True)
class Origin:
    """What a backend is told about where a request came from; a client's own words about it are dropped.

    Args:
        client: His address, without a port.
        scheme: ``http`` or ``https``, as he used it.
        port: That he connected to.
        request_id: Of this request, the same in every attempt and in the log.
    """

    client: bytes
    scheme: bytes
    port: int
    request_id: bytes


def write_request(head: RequestHead, origin: Origin, *, via: bytes, upgrade: bytes = b"") -> bytes:
    """Return the head that a backend gets.

    Args:
        head: As the client sent it; its path is in normal form already.
        origin: Where it came from.
        via: This proxy's name in Via (RFC 9110, section 7.6.3).
        upgrade: The protocol that is asked for, if the change is to be passed on.
    """
    parts = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method, head.path, head.host)]
    parts += _passed_on(head.fields, head.dropped)
    if head.is_chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif head.length or head.first(b"content-length") is not None:
        parts.append(b"Content-Length: %d\r\n" % head.length)
    if upgrade:
        parts.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % upgrade)
    parts.append(_via(head.fields, head.minor, via))
    parts.append(_origin(head, origin))
    parts.append(b"\r\n")
    return b"".join(parts)


def write_response(
    head: ResponseHead, *, via: bytes, chunked: bool, keeps_alive: bool, to_minor: int, more: bytes = b""
) -> bytes:
    """Return the head that a client gets.

    Args:
        head: As the backend sent it.
        via: This proxy's name in Via.
        chunked: Whether the body is sent in chunks; only to who speaks HTTP/1.1.
        keeps_alive: Whether the connection to the client goes on after it.
        to_minor: Of the client's version, 0 or 1.
        more: Fields of our own, each with its CR LF.
    """
    parts = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    parts += _passed_on(head.fields, head.dropped)
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    else:
        # Also of an answer to HEAD, and of a 304: there it says what another answer would have.
        parts += [field.line for field in head.fields if field.kind == Kind.LENGTH][:1]
    if head.status == 101:
        parts.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade)
    elif not keeps_alive:
        parts.append(b"Connection: close\r\n")
    elif to_minor == 0:
        parts.append(b"Connection: keep-alive\r\n")
    parts.append(_via(head.fields, head.minor, via))
    parts.append(more)
    parts.append(b"\r\n")
    return b"".join(parts)


def _passed_on(fields: Iterable[Field], dropped: frozenset[bytes]) -> list[bytes]:
    if dropped:
        return [field.line for field in fields if not field.kind and field.name not in dropped]
    return [field.line for field in fields if not field.kind]


def _via(fields: Iterable[Field], minor: int, via: bytes) -> bytes:
    before = [field.value for field in fields if field.kind == Kind.VIA and field.value]
    return b"Via: %b\r\n" % b", ".join([*before, b"1.%d %b" % (minor, via)])


def _origin(head: RequestHead, origin: Origin) -> bytes:
    bracketed = b'"[%b]"' % origin.client if b":" in origin.client else origin.client
    return (
        b'Forwarded: for=%b;proto=%b;host="%b"\r\n'
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Port: %d\r\n"
        b"X-Request-Id: %b\r\n"
    ) % (
        bracketed,
        origin.scheme,
        head.host,
        origin.client,
        origin.scheme,
        head.host,
        origin.port,
        origin.request_id,
    )
