"""Where sockets are opened: in this network namespace, or in another one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from marchproxy_core.testing.lab.naming import within

if TYPE_CHECKING:
    from marchproxy_core.testing.lab import Namespace

OpenSocket = Callable[[str, socket.SocketKind], trio.socket.SocketType]
"""Given an address that tells the family, and the kind."""


def open_here(ip: str, kind: socket.SocketKind) -> trio.socket.SocketType:
    """Open a socket where the test runs."""
    return trio.socket.socket(_family(ip), kind)


def opener_in(namespace: Namespace) -> OpenSocket:
    """Return what opens sockets in a namespace."""

    def open_there(ip: str, kind: socket.SocketKind) -> trio.socket.SocketType:
        sock = within(namespace.path, lambda: socket.socket(_family(ip), kind))
        return trio.socket.from_stdlib_socket(sock)

    return open_there


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET
