"""The listen addresses of all services: opened once by the daemon, lent to whichever tier carries them.

For each address one SO_REUSEPORT socket per worker. The daemon keeps every socket open for as long as its
service lives, so a worker or a tier may come and go while clients wait in the accept queue, refused by nobody.
Whoever accepts from a TCP socket drains its queue before it gives up its own duplicate; the kernel resets what
is left when the last duplicate closes.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, final

import attrs
import structlog

from marchproxy_core.errors import ListenError
from marchproxy_core.model import Listener
from marchproxy_core.port_holder import port_holder
from marchproxy_core.services import ANY_IPV4, ANY_IPV6, Endpoint, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_core.services import Service

log = structlog.get_logger()

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn, 4096 since Linux 5.4

# Linux values (include/uapi/linux/in6.h, in.h) that Python's socket module has under these names or not at all.
_IP_PKTINFO = 8

_FIXES = {
    errno.EADDRINUSE: "stop what listens there (ss -lntup shows it), or choose another address or port",
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE; or choose a higher port",
    errno.EADDRNOTAVAIL: "the address is not one of this host's (ip address shows them); listen on 0.0.0.0 or [::]",
    errno.EAFNOSUPPORT: "this host has IPv6 switched off; listen on an IPv4 address",
}

_Key = tuple[Protocol, Endpoint]


@attrs.frozen(kw_only=True)
class Buffers:
    """Socket buffer sizes in bytes; None leaves the kernel's own tuning in place."""

    receive: int | None = None
    send: int | None = None


@final
class ListenerSet:
    """All open listen addresses; the engine owns it and closes it."""

    def __init__(self, worker_count: int, buffers: Buffers = Buffers()) -> None:
        """Open nothing yet; ``worker_count`` sockets per address later, one or more."""
        self._worker_count = worker_count
        self._buffers = buffers
        self._open: dict[_Key, Listener] = {}

    def open(self, services: Iterable[Service]) -> None:
        """Make the set hold exactly the addresses of these services.

        An address that several services share is opened once, and closed when the last of them is gone. Addresses
        that stay keep their sockets, new ones are opened, those gone are closed. All or nothing, but for
        a service on a port of every address: on a host without IPv6 it is left with the IPv4 one, which is logged.

        Raises:
            ListenError: An address cannot be opened; the set is as it was. The message names service, address and fix.
        """
        wanted: dict[_Key, list[Service]] = {}
        for service in services:
            for endpoint in service.listen:
                wanted.setdefault((service.protocol, endpoint), []).append(service)
        fresh: dict[_Key, Listener] = {}
        try:
            for key, sharing in wanted.items():
                if key in self._open:
                    continue
                names = ", ".join(service.name for service in sharing)
                if all(_is_half_of_every_address(service, key[1]) for service in sharing) and not _has_ipv6():
                    log.warning("listener.left_out", service=names, address=str(key[1]), reason="no IPv6")
                    continue
                fresh[key] = self._listener(*key, service=names)
        except ListenError:
            _close(fresh.values())
            raise
        gone = [self._open.pop(key) for key in list(self._open) if key not in wanted]
        self._open.update(fresh)
        _close(gone)

    def of(self, service: Service) -> tuple[Listener, ...]:
        """Return the open listeners of a service, in the order that it names them, shared or not."""
        keys = ((service.protocol, endpoint) for endpoint in service.listen)
        return tuple(self._open[key] for key in keys if key in self._open)

    def close(self) -> None:
        """Close every socket; duplicates held by workers stay theirs."""
        _close(self._open.values())
        self._open.clear()

    def _listener(self, protocol: Protocol, endpoint: Endpoint, *, service: str) -> Listener:
        sockets: list[socket.socket] = []
        was_taken = _is_taken(protocol, endpoint)
        holder = port_holder(protocol, endpoint) if was_taken else ""
        try:
            for _ in range(self._worker_count):
                sockets.append(_bound(protocol, endpoint, self._buffers))  # noqa: PERF401 - kept when the next one fails
            if protocol is Protocol.TCP:
                # Only once all are bound: a socket that listens gets its share of clients at once.
                for sock in sockets:
                    sock.listen(BACKLOG)
        except OSError as error:
            for sock in sockets:
                sock.close()
            fix = _FIXES.get(error.errno or 0, "see the error")
            taken_by = f" by {holder}" if holder and error.errno == errno.EADDRINUSE else ""
            what = f"{error.strerror}{taken_by}"
            raise ListenError(
                f"service {service!r} cannot listen on {protocol} {endpoint}: {what} - fix: {fix}"
            ) from error
        if was_taken:
            log.warning("listener.shared", service=service, address=str(endpoint), holder=holder)
        return Listener(endpoint, tuple(sockets))


def _is_half_of_every_address(service: Service, endpoint: Endpoint) -> bool:
    """Whether it is the IPv6 half of a port alone, which stands for every address that the host has."""
    return endpoint.ip == ANY_IPV6 and Endpoint(ANY_IPV4, endpoint.port) in service.listen


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all: it was not built in, or switched off by ``ipv6.disable=1``.

    With the sysctl ``disable_ipv6`` it has, and a socket on every address can be opened.
    """
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def _is_taken(protocol: Protocol, endpoint: Endpoint) -> bool:
    """Whether somebody has the address already: one of the same user who set SO_REUSEPORT too would not stop us.

    That is how a daemon takes over from another without a client refused, so it is told, not forbidden.
    """
    family = socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as sock:
            if protocol is Protocol.TCP:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections in TIME_WAIT
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((str(endpoint.ip), endpoint.port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _bound(protocol: Protocol, endpoint: Endpoint, buffers: Buffers) -> socket.socket:
    family = socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if protocol is Protocol.TCP:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if buffers.receive is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers.receive)
        if buffers.send is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers.send)
        if protocol is Protocol.UDP and endpoint.is_wildcard:
            # Replies must leave from the address that the client talked to.
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.bind((str(endpoint.ip), endpoint.port))
    except OSError:
        sock.close()
        raise
    return sock


def _close(listeners: Iterable[Listener]) -> None:
    for listener in listeners:
        for sock in listener.sockets:
            sock.close()
