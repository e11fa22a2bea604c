"""Field lines (RFC 9112, section 5), judged one by one.

The same lines come again and again: a browser's User-Agent, an API's Accept. So what was found out about a line is
remembered, by the line's bytes, in a bounded table of this process.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import NamedTuple

from marchproxy_application.http1.refusals import Refusal, Refused

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
MOST_REMEMBERED = 4096
LONGEST_REMEMBERED = 256
"""Bytes; longer lines, cookies and tokens, are seldom the same for two clients."""


class Kind(enum.IntEnum):
    """What a field is to a proxy; most are nothing to it."""

    PLAIN = 0
    """Passed on as it is."""
    HOST = 1
    LENGTH = 2
    CODING = 3
    CONNECTION = 4
    UPGRADE = 5
    EXPECT = 6
    HOP = 7
    """Of this connection alone (RFC 9110, section 7.6.1), never passed on."""
    FORWARDED = 8
    """Says where a request came from; a client's is believed by nobody."""
    VIA = 9


KINDS = {
    b"host": Kind.HOST,
    b"content-length": Kind.LENGTH,
    b"transfer-encoding": Kind.CODING,
    b"connection": Kind.CONNECTION,
    b"upgrade": Kind.UPGRADE,
    b"expect": Kind.EXPECT,
    b"keep-alive": Kind.HOP,
    b"proxy-connection": Kind.HOP,
    b"proxy-authenticate": Kind.HOP,
    b"proxy-authorization": Kind.HOP,
    b"te": Kind.HOP,
    b"trailer": Kind.HOP,
    b"http2-settings": Kind.HOP,
    b"forwarded": Kind.FORWARDED,
    b"x-forwarded-for": Kind.FORWARDED,
    b"x-forwarded-host": Kind.FORWARDED,
    b"x-forwarded-port": Kind.FORWARDED,
    b"x-forwarded-proto": Kind.FORWARDED,
    b"x-real-ip": Kind.FORWARDED,
    b"x-request-id": Kind.FORWARDED,
    b"via": Kind.VIA,
}


_AS_CGI = bytes(each if chr(each).isalnum() and each < 0x80 else 0x2D for each in range(256))


def as_cgi(name: bytes) -> bytes:
    """Return a field's name so that those are alike which CGI and what is like it take for one another."""
    return name.translate(_AS_CGI)


def kind_of(name: bytes) -> int:
    """Return what a field is to a proxy.

    X_Forwarded_For is X-Forwarded-For to CGI and what is like it (RFC 3875, section 4.1.18), and some have dots for
    underscores: one that could be taken for a field with a meaning to us is passed on to nobody.

    Args:
        name: In small letters.
    """
    kind = KINDS.get(name)
    if kind is None:
        return Kind.HOP if as_cgi(name) in KINDS else Kind.PLAIN
    return kind


class Field(NamedTuple):
    """One field."""

    name: bytes
    """In small letters."""
    value: bytes
    """Without white space around it."""
    kind: int
    line: bytes
    """As it is written: the name in its sender's letters, one space, CR LF."""


class HasFields:
    """What a head can be asked about its fields, by their names in small letters."""

    __slots__ = ()
    fields: list[Field]

    def first(self, name: bytes) -> bytes | None:
        """Return the value of the first field of a name."""
        return next((field.value for field in self.fields if field.name == name), None)

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of all fields of a name."""
        return [field.value for field in self.fields if field.name == name]


def read_field(line: bytes) -> Field:
    """Judge a field line.

    Args:
        line: Without its CR LF.

    Raises:
        Refused: It is malformed.
    """
    return _known(line) if len(line) <= LONGEST_REMEMBERED else _judged(line)


def is_token(text: bytes) -> bool:
    """Whether it is a token (RFC 9110, section 5.6.2)."""
    return bool(text) and not text.translate(None, _TOKEN)


def tokens_of(value: bytes) -> list[bytes]:
    """Return the members of a list of tokens, in small letters; empty ones count for nothing (section 5.6.1.2)."""
    return [member for each in value.split(b",") if (member := each.strip(b" \t").lower())]


def _judged(line: bytes) -> Field:
    name, colon, rest = line.partition(b":")
    known = _known_name(name)
    value = rest.strip(b" \t")
    if known is None or not colon or value.translate(None, _VALUE):
        raise Refused(_why(line, is_name=known is not None and bool(colon)))
    return Field(known[0], value, known[1], b"%b: %b\r\n" % (name, value))


def _why(line: bytes, *, is_name: bool) -> Refusal:
    if b"\n" in line or b"\r" in line:
        return Refusal.BAD_LINE_END
    if line[:1] in (b" ", b"\t"):
        return Refusal.FOLDED_FIELD
    return Refusal.BAD_FIELD_VALUE if is_name else Refusal.BAD_FIELD_NAME


@lru_cache(MOST_REMEMBERED)
def _known_name(name: bytes) -> tuple[bytes, int] | None:
    """Return a name in small letters, and what it is to us; None for what is no token."""
    lower = name.lower()
    return (lower, kind_of(lower)) if is_token(name) else None


_known = lru_cache(MOST_REMEMBERED)(_judged)
