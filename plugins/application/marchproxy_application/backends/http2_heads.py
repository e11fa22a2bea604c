"""Heads towards HTTP/2 backends: requests as header blocks, answers judged strictly. Pure.

A request comes as HTTP/1.1 would have it, an answer leaves so, too: what both versions share is worked out once, and
remembered by the same bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from hpack.table import HeaderTable

from marchproxy_application.http1.fields import tokens_of
from marchproxy_application.http1.response import ResponseHead, read_response
from marchproxy_application.http2.answers import field_block, lines_block
from marchproxy_application.http2.heads import OF_CONNECTIONS, Malformed, strict_field
from marchproxy_application.serving.own_answers import reason_phrase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_application.http1.request import RequestHead
    from marchproxy_application.http2.heads import Header

TE_TRAILERS: Final = field_block(b"te", b"trailers")
_DROPPED: Final = OF_CONNECTIONS | {b"host", b"te", b"http2-settings"}
_LONGEST_REMEMBERED: Final = 1024
_VERSION: Final = b"HTTP/2"


def request_block(start: bytes, scheme: bytes) -> bytes:
    """Encode the first part of a request's head.

    Args:
        start: As HTTP/1.1 has it: request line and fields, Host among them.
        scheme: That the backend is spoken to in.
    """
    return _known(start, scheme) if len(start) <= _LONGEST_REMEMBERED else _encoded(start, scheme)


def wants_trailers(head: RequestHead) -> bool:
    """Whether the client has said that it takes trailers (RFC 9110, section 10.1.4)."""
    return any(field.name == b"te" and b"trailers" in tokens_of(field.value) for field in head.fields)


def answer_block(headers: Iterable[Header]) -> bytes:
    """Write an answer's fields as HTTP/1.1 would have them, but for the version, for :func:`read_answer`.

    Raises:
        Malformed: They are none, or HTTP/1.1 would read something else in them.
    """
    status = b""
    lines: list[bytes] = []
    for name, value in headers:
        if name[:1] == b":":
            if name != b":status" or status or lines or len(value) != 3 or not value.isdigit():
                raise Malformed("a pseudo-header that is unknown, comes twice, or comes behind a field")
            status = bytes(value)
            continue
        lines.append(strict_field(name, value).line)
    if not status or status == b"101":
        raise Malformed("no :status, or 101")
    return b"%b %b %b\r\n%b\r\n" % (_VERSION, status, reason_phrase(int(status)), b"".join(lines))


def read_answer(block: bytes, method: bytes) -> ResponseHead:
    """Read what :func:`answer_block` wrote; arguments and errors as for ``read_response``."""
    head = read_response(b"HTTP/1.1" + block[len(_VERSION) :], method)
    head.minor = 2
    return head


def _encoded(start: bytes, scheme: bytes) -> bytes:
    line, _, rest = start.partition(b"\r\n")
    method, path, _ = line.split(b" ")
    host_line, _, rest = rest.partition(b"\r\n")
    host = host_line.partition(b": ")[2]
    parts = [_pseudo(b":method", method), _pseudo(b":scheme", scheme)]
    if host:
        parts.append(field_block(b":authority", host))
    parts += [_pseudo(b":path", path), lines_block(rest, _DROPPED)]
    return b"".join(parts)


def _pseudo(name: bytes, value: bytes) -> bytes:
    index = HeaderTable.STATIC_TABLE_MAPPING[name][1].get(value)
    return bytes([0x80 | index]) if index else field_block(name, value)


_known = lru_cache(1024)(_encoded)
lines_block_again = lru_cache(1024)(lines_block)
"""The same as ``lines_block``, remembered."""
