"""A request's head (RFC 9112, sections 3 and 6): read once, strictly; what is sent on is written from this."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import attrs

from marchproxy_application.http1.fields import (
    LONGEST_REMEMBERED,
    MOST_REMEMBERED,
    Field,
    HasFields,
    Kind,
    is_token,
    read_field,
    tokens_of,
)
from marchproxy_application.http1.refusals import Refusal, Refused

_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_PATH = re.compile(rb"/[!-\"$-~]*")
"""Visible ASCII but the number sign: browsers send more than RFC 3986's characters, and nothing else can be misread."""
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(/[!-\"$-~]*|\?[!-\"$-~]*)?")
_HOST = re.compile(
    rb"(\[[0-9a-fA-F:.]{2,45}\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::([0-9]{0,5}))?"
)
"""A host and its port (RFC 3986, section 3.2.2); who asked in HTTP/1.1 may leave the host empty."""
_LENGTH = re.compile(rb"[0-9]{1,18}")


@attrs.define(eq=False)
class RequestHead(HasFields):
    """What a request asks for, and how it goes on."""

    method: bytes
    path: bytes
    """With its query, in origin form; ``*`` for the server as a whole."""
    host: bytes
    """In small letters, with its port if one was given; empty when an HTTP/1.0 client named none."""
    minor: int
    """Of the version: 0 or 1."""
    fields: list[Field]
    """All of them, in order."""
    length: int = 0
    """Bytes of the body; of no meaning when it is chunked."""
    is_chunked: bool = False
    keeps_alive: bool = True
    """Whether the client can use the connection for another request."""
    upgrade: bytes = b""
    """To which protocol the client asks to change, in small letters; only in a GET without a body."""
    waits: bool = False
    """Whether the client waits for 100 (Continue) before its body; false when it has none."""
    dropped: frozenset[bytes] = frozenset()
    """Fields that Connection names: of this connection alone."""

    @property
    def has_body(self) -> bool:
        """Whether there is anything behind the head."""
        return self.is_chunked or self.length > 0


class _Line(NamedTuple):
    method: bytes
    path: bytes
    authority: bytes | None
    """That of a target in absolute form."""
    minor: int


def end_of_head(data: bytes, most_bytes: int) -> int:
    """Return where a head ends, behind its empty line; 0 while that has not come.

    Args:
        data: What has come.
        most_bytes: How large the head may be.

    Raises:
        Refused: It is too large, or its lines do not end as they have to.
    """
    end = data.find(b"\r\n\r\n") + 4
    is_whole = end >= 4
    if (end if is_whole else len(data)) > most_bytes:
        # Where not even the first line has an end, it is the target that is too long.
        raise Refused(Refusal.HEAD_TOO_LARGE if b"\r\n" in data[:most_bytes] else Refusal.TARGET_TOO_LONG)
    if not is_whole and (b"\n\n" in data or b"\n\r\n" in data):
        raise Refused(Refusal.BAD_LINE_END)
    return end if is_whole else 0


def read_request(block: bytes) -> RequestHead:
    """Read a request's head.

    Args:
        block: All of it, from the first byte of the request line to the empty line and its CR LF.

    Raises:
        Refused: Somebody could read it otherwise than we would, or it asks for what is not there.
    """
    lines = block.split(b"\r\n")
    line = _read_line(lines[0])
    head = RequestHead(line.method, line.path, b"", line.minor, [read_field(each) for each in lines[1:-2]])
    special = [field for field in head.fields if field.kind]
    _read_host(head, special, line.authority)
    for field in special:
        kind = field.kind
        if kind == Kind.CONNECTION:
            _read_connection(head, special)
        elif kind in (Kind.LENGTH, Kind.CODING):
            _read_framing(head, special)
        elif kind == Kind.EXPECT:
            _read_expectation(head, field.value)
    if head.minor == 0 and not _asks_to_stay(special):
        head.keeps_alive = False
    _leave_out_nonsense(head)
    return head


def _read_line(line: bytes) -> _Line:
    return _known(line) if len(line) <= LONGEST_REMEMBERED else _judged(line)


def _judged(line: bytes) -> _Line:
    if b"\n" in line or b"\r" in line:
        raise Refused(Refusal.BAD_LINE_END)
    parts = line.split(b" ")
    if len(parts) != 3 or not is_token(parts[0]):
        raise Refused(Refusal.BAD_REQUEST_LINE)
    method, target, version = parts
    match = _VERSION.fullmatch(version)
    if match is None:
        raise Refused(Refusal.BAD_REQUEST_LINE)
    if match[1] != b"1" or match[2] not in (b"0", b"1"):
        raise Refused(Refusal.BAD_VERSION)
    if method == b"CONNECT":
        raise Refused(Refusal.METHOD_NOT_IMPLEMENTED)
    path, authority = _read_target(method, target)
    return _Line(method, path, authority, int(match[2]))


_known = lru_cache(MOST_REMEMBERED)(_judged)


def _read_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    if _PATH.fullmatch(target):
        return target, None
    if target == b"*" and method == b"OPTIONS":
        return target, None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Refused(Refusal.BAD_TARGET)
    authority, rest = match[1], match[2] or b""
    if not authority or _host_of(authority) is None:
        raise Refused(Refusal.BAD_TARGET)
    if not rest and method == b"OPTIONS":
        return b"*", authority  # RFC 9112, section 3.2.4
    return (rest if rest.startswith(b"/") else b"/" + rest), authority


def _host_of(text: bytes) -> bytes | None:
    match = _HOST.fullmatch(text)
    if match is None or (match[2] and int(match[2]) > 65535):
        return None
    return text.lower()


def _read_host(head: RequestHead, special: list[Field], authority: bytes | None) -> None:
    hosts = [field.value for field in special if field.kind == Kind.HOST]
    if len(hosts) > 1 or (not hosts and head.minor == 1):
        raise Refused(Refusal.NO_HOST)
    host = _host_of(hosts[0]) if hosts else b""
    if host is None:
        raise Refused(Refusal.BAD_HOST)
    if authority is not None:
        # The target's would win (RFC 9112, section 3.2.2); a second opinion is somebody's attempt.
        if hosts and host != authority.lower():
            raise Refused(Refusal.BAD_HOST)
        host = authority.lower()
    head.host = host


def _read_connection(head: RequestHead, special: list[Field]) -> None:
    options = {
        option for field in special if field.kind == Kind.CONNECTION for option in tokens_of(field.value)
    }
    if b"close" in options:
        head.keeps_alive = False
    if b"upgrade" in options and head.minor == 1:
        upgrades = [
            token for field in special if field.kind == Kind.UPGRADE for token in tokens_of(field.value)
        ]
        head.upgrade = upgrades[0] if upgrades else b""
    head.dropped = frozenset(options)


def _asks_to_stay(special: list[Field]) -> bool:
    return any(b"keep-alive" in tokens_of(field.value) for field in special if field.kind == Kind.CONNECTION)


def _read_framing(head: RequestHead, special: list[Field]) -> None:
    lengths = [field.value for field in special if field.kind == Kind.LENGTH]
    codings = [field.value for field in special if field.kind == Kind.CODING]
    if lengths and codings:
        raise Refused(Refusal.LENGTH_AND_CODING)
    if codings:
        if head.minor == 0:
            raise Refused(Refusal.CODING_IN_HTTP_1_0)
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Refused(Refusal.UNKNOWN_CODING)
        head.is_chunked = True
    elif len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Refused(Refusal.BAD_LENGTH)
    else:
        head.length = int(lengths[0])


def _leave_out_nonsense(head: RequestHead) -> None:
    """Ignore wishes that make no sense in this request: there are servers that never answer them."""
    if not head.has_body:
        head.waits = False  # RFC 9110, section 10.1.1
    if head.has_body or head.method != b"GET":
        head.upgrade = (
            b""  # RFC 6455, section 4.1; behind a body nobody could say where the other protocol begins
        )


def _read_expectation(head: RequestHead, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise Refused(Refusal.UNKNOWN_EXPECTATION)
    head.waits = head.minor == 1
