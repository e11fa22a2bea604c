"""What TCP and UDP share about the sockets that they open towards backends."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_core.config import Settings

NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a host that has no room for one more socket; whoever is at the other end is not to blame."""


def set_buffers(sock: SocketType, settings: Settings) -> None:
    """Apply ``RECV_BUFFER_SIZE`` and ``SEND_BUFFER_SIZE``; before connecting, so that the TCP window knows."""
    if settings.recv_buffer_size is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.recv_buffer_size)
    if settings.send_buffer_size is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_size)
