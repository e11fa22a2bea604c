"""Requests' field sections (RFC 9113, section 8), judged strictly and turned into heads of HTTP/1.1. Pure.

A backend reads HTTP/1.1, so whatever could be read there as something else than it was here is refused: line ends,
spaces and colons in names, a second opinion on the host, fields that speak of a connection. What is left is read by the
very reader of HTTP/1.1, so that both versions are held to the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Generic, TypeVar, final

from marchproxy_application.http1.fields import Field, Kind, is_token, read_field
from marchproxy_application.http1.refusals import Refusal, Refused
from marchproxy_application.http1.request import RequestHead, read_request

Header = tuple[bytes, bytes]

PSEUDO_HEADERS: Final = 5
"""As many as a request may have."""
WEBSOCKET: Final = b"websocket"
_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
"""Fields that HTTP/2 has no use for (RFC 9113, section 8.2.2)."""
_VISIBLE: Final = re.compile(rb"[!-~]*")
_MEAN_A_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods whose requests say so when they have no body (RFC 9110, section 8.6)."""
_OF_HANDSHAKES: Final = frozenset({b"sec-websocket-key", b"sec-websocket-accept"})
"""Of no meaning in HTTP/2 (RFC 8441, section 5.1); towards the backend they are ours."""
_MOST_TRAILERS: Final = 100
_MOST_REMEMBERED: Final = 1024
_LONGEST_REMEMBERED: Final = 1024

V = TypeVar("V")


class Malformed(Exception):
    """A stream's fields are malformed (RFC 9113, section 8.1.1); the message says what is wrong."""


@final
class HeadMemory(Generic[V]):
    """Remembers what was found out about requests, by their fields; bounded, and emptied as a whole when full."""

    __slots__ = ("_known", "get")

    def __init__(self) -> None:
        """Know nothing."""
        self._known: dict[tuple[bool, tuple[Header, ...]], V] = {}
        self.get = self._known.get

    def keep(self, key: tuple[bool, tuple[Header, ...]], value: V) -> None:
        """Remember, unless it is too long to come twice.

        Args:
            key: Whether the stream ended with them, and the fields.
            value: What was found out.
        """
        if size_of(key[1]) <= _LONGEST_REMEMBERED:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = value

    def forget(self) -> None:
        """Forget everything, since what it was found out from has changed."""
        self._known.clear()


def read_head(headers: Iterable[Header], *, is_over: bool) -> RequestHead:
    """Read a request's head.

    Args:
        headers: Pseudo-headers and fields, as HPACK had them.
        is_over: Whether the stream ended with them.

    Returns:
        The head of an HTTP/1.1 request that means the same; an extended CONNECT is a GET that asks for an upgrade,
        still without the key that WebSocket wants.

    Raises:
        Malformed: It is none, or no faithful translation exists.
        Refused: It asks for what is not there.
    """
    pseudo, fields = _split(headers)
    method = _method(pseudo)
    host = _host(pseudo, fields)
    path = pseudo[b":path"]
    lines = [b"Host: %b" % host]
    if method == b"CONNECT":
        method = b"GET"
        lines += [b"Connection: Upgrade", b"Upgrade: %b" % pseudo[b":protocol"].lower()]
        fields = [field for field in fields if field.name not in _OF_HANDSHAKES]
    lines += [field.line[:-2] for field in fields if field.name != b"host"]
    counted = any(field.kind == Kind.LENGTH for field in fields)
    if is_over and not counted and method in _MEAN_A_BODY:
        lines.append(b"Content-Length: 0")
    try:
        head = read_request(b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, path, b"\r\n".join(lines)))
    except Refused as refused:
        if refused.refusal.status == 400:
            raise Malformed(refused.refusal.text) from refused
        raise
    if is_over and head.length:
        raise Malformed("Content-Length says that there is a body, and there is none")
    if not is_over and not counted and not head.upgrade:
        head.is_chunked = True
        head.waits = any(field.kind == Kind.EXPECT for field in fields)
    return head


def read_trailers(headers: Iterable[Header]) -> list[Field]:
    """Read the fields behind a body.

    Raises:
        Malformed: They are none, or say how to read or route the message (RFC 9110, section 6.5.1).
    """
    pseudo, fields = _split(headers)
    if pseudo:
        raise Malformed("a pseudo-header behind the body")
    if len(fields) > _MOST_TRAILERS or any(field.kind not in (Kind.PLAIN, Kind.HOP) for field in fields):
        raise Malformed(Refusal.BAD_TRAILER.text)
    return [field for field in fields if not field.kind]


def size_of(headers: Iterable[Header]) -> int:
    """Return how many bytes fields have in HTTP/1.1, colons and line ends included."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _split(headers: Iterable[Header]) -> tuple[dict[bytes, bytes], list[Field]]:
    pseudo: dict[bytes, bytes] = {}
    fields: list[Field] = []
    cookies: list[bytes] = []
    for name, value in headers:
        if name[:1] == b":":
            if fields or cookies or name in pseudo or name not in _PSEUDO:
                raise Malformed("a pseudo-header that is unknown, comes twice, or comes behind a field")
            if not _VISIBLE.fullmatch(value):
                raise Malformed(f"{name.decode()} has a space or a control character")
            pseudo[name] = value
            continue
        field = _field(name, value)
        if name == b"cookie":
            cookies.append(value)
        else:
            fields.append(field)
    if cookies:
        # HTTP/1.1 knows one Cookie field only (RFC 9113, section 8.2.3).
        fields.append(_field(b"cookie", b"; ".join(cookies)))
    return pseudo, fields


def strict_field(name: bytes, value: bytes) -> Field:
    """Judge a field of HTTP/2 as it will be read in HTTP/1.1.

    Raises:
        Malformed: HTTP/1.1 would read something else in it, or it speaks of a connection.
    """
    try:
        field = read_field(b"%b: %b" % (name, value))
    except Refused as refused:
        raise Malformed(refused.refusal.text) from refused
    # A colon in the name, a capital letter, or white space around the value: read otherwise than it came.
    if field.name != name or field.value != value:
        raise Malformed("a field's name or value that HTTP/1.1 would read otherwise")
    if name in OF_CONNECTIONS:
        raise Malformed(f"{name.decode()} speaks of a connection")
    return field


def _field(name: bytes, value: bytes) -> Field:
    field = strict_field(name, value)
    if name == b"te" and value.lower() != b"trailers":
        raise Malformed(f"{name.decode()} speaks of a connection")
    return field


def _method(pseudo: dict[bytes, bytes]) -> bytes:
    method = pseudo.get(b":method", b"")
    if not is_token(method):
        raise Malformed("no :method")
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT":
        if protocol is None or protocol.lower() != WEBSOCKET:
            raise Refused(Refusal.METHOD_NOT_IMPLEMENTED)
    elif protocol is not None:
        raise Malformed(":protocol without CONNECT")
    if pseudo.get(b":scheme", b"").lower() not in (b"http", b"https"):
        raise Malformed("no :scheme, or neither http nor https")
    path = pseudo.get(b":path", b"")
    if path[:1] != b"/" and path != b"*":
        raise Malformed(":path is not in origin form")
    return method


def _host(pseudo: dict[bytes, bytes], fields: list[Field]) -> bytes:
    hosts = [field.value for field in fields if field.kind == Kind.HOST]
    authority = pseudo.get(b":authority")
    if authority is not None:
        if any(host.lower() != authority.lower() for host in hosts):
            raise Malformed(":authority and Host differ")
        hosts = [authority, *hosts[1:]]
    if len(hosts) != 1 or not hosts[0]:
        raise Malformed("neither :authority nor Host, or Host twice")
    return hosts[0]
