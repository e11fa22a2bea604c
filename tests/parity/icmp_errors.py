"""ICMP errors as a socket hears them: ip(7) and ipv6(7), IP_RECVERR and the error queue."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import attrs
import trio

# include/uapi/linux/in.h, in6.h, errqueue.h
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_IP_MTU, _IPV6_MTU = 14, 24
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
_ORIGIN_ICMP, _ORIGIN_ICMP6 = 2, 3
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_WORDS = {
    (_ORIGIN_ICMP, 3, 3): "port unreachable",
    (_ORIGIN_ICMP, 3, 4): "packet too big",
    (_ORIGIN_ICMP, 11, 0): "time exceeded",
    (_ORIGIN_ICMP6, 1, 4): "port unreachable",
    (_ORIGIN_ICMP6, 2, 0): "packet too big",
    (_ORIGIN_ICMP6, 3, 0): "time exceeded",
}


@attrs.frozen
class IcmpError:
    """One error about something that a socket sent."""

    what: str
    offender: str
    """Who sent the error."""
    mtu: int
    """Of one that is too big: what would fit, in bytes."""


def tell_errors(sock: trio.socket.SocketType) -> None:
    """Have a socket keep the ICMP errors about what it sends."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def never_fragment(sock: trio.socket.SocketType) -> None:
    """Have a socket send whole packets only, and keep the errors about them."""
    tell_errors(sock)
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)


def known_mtu(sock: trio.socket.SocketType) -> int:
    """Return what the kernel knows of the path of a connected socket, in bytes."""
    if sock.family == socket.AF_INET:
        return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)


async def next_error(sock: trio.socket.SocketType, within_s: float) -> IcmpError | None:
    """Wait for the next ICMP error; None when none comes in time."""
    with trio.move_on_after(within_s):
        while True:
            _, ancillary, _, _ = await sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
            for level, kind, data in ancillary:
                if (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                    return _parsed(data)
    return None


def _parsed(data: bytes) -> IcmpError:
    _, origin, kind, code, _, info, _ = _EXTENDED_ERROR.unpack_from(data)
    offender = data[_EXTENDED_ERROR.size :]
    # struct sockaddr_in has the address at 4, struct sockaddr_in6 at 8.
    packed = offender[8:24] if origin == _ORIGIN_ICMP6 else offender[4:8]
    what = _WORDS.get((origin, kind, code), f"error {kind}/{code} of origin {origin}")
    return IcmpError(what, str(ip_address(packed)), info)
