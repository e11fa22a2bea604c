"""PROXY protocol headers, to and from bytes; pure. By haproxy.org's proxy-protocol.txt of 2020/03/05.

Sent are versions 1 and 2, always for TCP; taken from clients is version 2 alone, whose length is known from its
first 16 bytes.
"""

from __future__ import annotations

import ipaddress
import struct

import attrs

Address = tuple[str, int] | tuple[str, int, int, int]
"""As sockets have it: host, port, and with IPv6 flow label and scope, which a header has no room for."""

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_HEAD = struct.Struct("!12sBBH")
MOST_BYTES = _HEAD.size + 2048
"""Longest header taken: TLVs with a client's certificate fields fit, an attacker's 64 KiB do not wait in memory."""

_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES = {
    _TCP4: struct.Struct("!4s4sHH"),
    0x12: struct.Struct("!4s4sHH"),
    _TCP6: struct.Struct("!16s16sHH"),
    0x22: struct.Struct("!16s16sHH"),
    _UNIX: struct.Struct("!108s108s"),
    0x32: struct.Struct("!108s108s"),
    _UNSPEC: struct.Struct(""),
}


class BadHeader(ValueError):
    """What came is no version 2 header; the text is the reason, free of what was sent."""


@attrs.frozen
class Decoded:
    """A whole header."""

    length: int
    """Bytes of it; the stream proper begins there."""
    source: tuple[str, int] | None
    """The client; None when the sender speaks for itself (LOCAL), or does not say (UNSPEC, UNIX)."""
    destination: tuple[str, int] | None
    """Where the client connected to."""


def encode_v1(source: Address, destination: Address) -> bytes:
    """Return a header of version 1 (section 2.1): one line of text.

    Args:
        source: The client.
        destination: Where it connected to. If one is an IPv4 address and the other is not, both go as IPv6.
    """
    one, other = _same_version(source, destination)
    family = "TCP4" if one.version == 4 else "TCP6"
    return f"PROXY {family} {one} {other} {source[1]} {destination[1]}\r\n".encode("ascii")


def encode_v2(source: Address, destination: Address) -> bytes:
    """Return a header of version 2 (section 2.2), without TLVs; arguments as for :func:`encode_v1`."""
    one, other = _same_version(source, destination)
    family = _TCP4 if one.version == 4 else _TCP6
    body = _ADDRESSES[family].pack(one.packed, other.packed, source[1], destination[1])
    return _HEAD.pack(SIGNATURE, _PROXY, family, len(body)) + body


def decode_v2(data: bytes) -> Decoded | None:
    """Read the header that a stream begins with.

    Args:
        data: The stream as far as it has come.

    Returns:
        The header, or None when more bytes are needed to tell.

    Raises:
        BadHeader: This is no header of version 2, whatever follows; or one longer than ``MOST_BYTES``.
    """
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise BadHeader("no PROXY header of version 2")
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise BadHeader("PROXY header: unknown version or command")
    if len(data) > 13 and data[13] not in _ADDRESSES:
        raise BadHeader("PROXY header: unknown address family or protocol")
    if len(data) < _HEAD.size:
        return None
    _, command, family, size = _HEAD.unpack_from(data)
    length = _HEAD.size + size
    if length > MOST_BYTES:
        raise BadHeader(f"PROXY header: longer than {MOST_BYTES} bytes")
    if command == _PROXY and size < _ADDRESSES[family].size:
        raise BadHeader("PROXY header: too short for its addresses")
    if len(data) < length:
        return None
    # LOCAL says that the family means nothing: a health check of the sender's own (section 2.2).
    if command == _LOCAL or family in (_UNSPEC, _UNIX, 0x32):
        return Decoded(length, None, None)
    source, destination, source_port, destination_port = _ADDRESSES[family].unpack_from(data, _HEAD.size)
    return Decoded(length, (_text(source), source_port), (_text(destination), destination_port))


def _text(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


def _same_version(
    source: Address, destination: Address
) -> (
    tuple[ipaddress.IPv4Address, ipaddress.IPv4Address] | tuple[ipaddress.IPv6Address, ipaddress.IPv6Address]
):
    one, other = _address(source[0]), _address(destination[0])
    if isinstance(one, ipaddress.IPv4Address) and isinstance(other, ipaddress.IPv4Address):
        return one, other
    return _as_ipv6(one), _as_ipv6(other)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _as_ipv6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    """Map an IPv4 address into IPv6 (RFC 4291, section 2.5.5.2)."""
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    return address
