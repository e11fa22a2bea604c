"""How connections to backends are begun, of whatever version of HTTP."""

from __future__ import annotations

import errno
import socket
from socket import SocketType
from typing import TYPE_CHECKING, Final

from marchproxy_core.drops import DropReason
from marchproxy_core.relay.outgoing import NO_DESCRIPTORS, set_buffers

if TYPE_CHECKING:
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_core.config import Settings
    from marchproxy_core.services import Endpoint

_STREAM: Final = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def connect(endpoint: Endpoint, settings: Settings) -> SocketType:
    """Return a socket that is connecting, or connected.

    Raises:
        OSError: It cannot be had, or is refused at once.
    """
    sock = SocketType(socket.AF_INET6 if endpoint.ip.version == 6 else socket.AF_INET, _STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        set_buffers(sock, settings)
        sock.connect((str(endpoint.ip), endpoint.port))
    except BlockingIOError:
        return sock
    except OSError:
        sock.close()
        raise
    return sock


def tell_failure(exchange: Exchange, error: OSError) -> None:
    """Tell a request that its connection could not be begun."""
    text = error.strerror or str(error)
    if error.errno in NO_DESCRIPTORS:
        exchange.backend_lacking(DropReason.NO_DESCRIPTORS, text)
    elif error.errno == errno.EADDRNOTAVAIL:
        # connect(2): no port of ours is free; the backend is not to blame.
        exchange.backend_failed(DropReason.NO_SOURCE_PORT, text, sent=False)
    else:
        exchange.backend_failed(DropReason.BACKEND_REFUSED, text, sent=False)
