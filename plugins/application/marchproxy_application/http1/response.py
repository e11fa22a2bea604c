"""A response's head (RFC 9112, sections 4 and 6), as strictly as a request's: a backend may be somebody else's, too."""

from __future__ import annotations

import re

import attrs

from marchproxy_application.http1.fields import Field, HasFields, Kind, read_field, tokens_of
from marchproxy_application.http1.refusals import Refusal, Refused

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_NO_CONTENT = frozenset({204, 304})


@attrs.define(eq=False)
class ResponseHead(HasFields):
    """What a response says, and how it goes on."""

    status: int
    reason: bytes
    minor: int
    """Of the version: 0 or 1."""
    fields: list[Field]
    length: int | None = None
    """Bytes of the body; None when it is chunked, or ends with the connection."""
    is_chunked: bool = False
    keeps_alive: bool = True
    """Whether the backend's connection can be used again, once the body has ended."""
    upgrade: bytes = b""
    dropped: frozenset[bytes] = frozenset()
    """Fields that Connection names: of this connection alone."""

    @property
    def is_interim(self) -> bool:
        """Whether another response follows; 101 changes the protocol instead."""
        return self.status < 200 and self.status != 101


def read_response(block: bytes, method: bytes) -> ResponseHead:
    """Read a response's head.

    Args:
        block: All of it, from the first byte of the status line to the empty line and its CR LF.
        method: Of the request that it answers.

    Raises:
        Refused: It is malformed.
    """
    lines = block.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise Refused(Refusal.BAD_STATUS_LINE)
    fields = [read_field(line) for line in lines[1:-2]]
    head = ResponseHead(int(match[2]), match[3] or b"", int(match[1]), fields)
    special = [field for field in fields if field.kind]
    options = {
        option for field in special if field.kind == Kind.CONNECTION for option in tokens_of(field.value)
    }
    head.dropped = frozenset(options)
    head.keeps_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
    if head.status == 101:
        head.upgrade = next((field.value.lower() for field in special if field.kind == Kind.UPGRADE), b"")
    _read_framing(head, special, method)
    return head


def _read_framing(head: ResponseHead, special: list[Field], method: bytes) -> None:
    """Find out where the body ends (RFC 9112, section 6.3)."""
    lengths = [field.value for field in special if field.kind == Kind.LENGTH]
    codings = [field.value for field in special if field.kind == Kind.CODING]
    if lengths and codings:
        raise Refused(Refusal.LENGTH_AND_CODING)
    if len(set(lengths)) > 1 or any(not _LENGTH.fullmatch(length) for length in lengths):
        raise Refused(Refusal.BAD_LENGTH)
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise Refused(Refusal.UNKNOWN_CODING)
    if method == b"HEAD" or head.status < 200 or head.status in _NO_CONTENT:
        head.length = 0
    elif codings:
        if head.minor == 0:
            raise Refused(Refusal.CODING_IN_HTTP_1_0)
        head.is_chunked = True
    elif lengths:
        head.length = int(lengths[0])
    else:
        head.keeps_alive = False  # it ends with the connection
