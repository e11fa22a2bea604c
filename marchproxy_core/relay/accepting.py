"""Taking clients from listening sockets, within the limits, also when descriptors run out."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import struct
from collections.abc import Callable
from socket import SocketType
from typing import TYPE_CHECKING, Final, final

from marchproxy_core.drops import DropReason
from marchproxy_core.relay.outgoing import NO_DESCRIPTORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.relay.loop import Loop

Address = tuple[str, int] | tuple[str, int, int, int]
"""As sockets have it: host, port, and with IPv6 flow label and scope."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""For SO_LINGER: close(2) then sends a reset (socket(7))."""

# Plain numbers: the enumerations of Python's module cost more than the system calls they are for.
_IPV4: Final = int(socket.AF_INET)
_IPV6: Final = int(socket.AF_INET6)
_STREAM: Final = int(socket.SOCK_STREAM)
_ACCEPTS = 64
"""How many clients are taken at once before others get their turn."""


@final
class Acceptor:
    """Accepts from the listening sockets that it is given, which it owns."""

    def __init__(self, loop: Loop, carried: Carried, take: Callable[[SocketType, Address], None]) -> None:
        """Accept nothing yet.

        Args:
            loop: The worker's.
            carried: The service whose limits a new client has to keep to.
            take: Called with each client that may come in, non-blocking, and its address; owns the socket then.
        """
        self.carried = carried
        self._loop = loop
        self._take = take
        self._listening: list[socket.socket] = []
        # Given up for a moment when descriptors run out, so that a client can be told.
        self._reserve = _open_reserve()

    def listen(self, sockets: Sequence[socket.socket], *, serve_out: bool = False) -> None:
        """Accept from exactly these sockets; those not named any more are closed.

        Args:
            sockets: The sockets.
            serve_out: Whether those that go away are gone for good, so that who waits in their queues is served
                first; else somebody else goes on with them.
        """
        for sock in [sock for sock in self._listening if sock not in sockets]:
            self._listening.remove(sock)
            while serve_out and self._accept(sock):
                pass
            self._loop.close_socket(sock)
        for sock in sockets:
            if sock not in self._listening:
                # Accepted sockets inherit it: small messages are not to wait for acknowledgements.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._listening.append(sock)
                self._loop.watch(sock.fileno(), select.EPOLLIN, functools.partial(self._on_clients, sock))

    def close(self) -> None:
        """Accept nothing any more."""
        self.listen(())
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def _on_clients(self, sock: socket.socket, events: int) -> None:
        del events
        for _ in range(_ACCEPTS):
            if not self._accept(sock):
                return

    def _accept(self, listening: socket.socket) -> bool:
        """Accept one client; false when there is none."""
        try:
            # What accept() calls; without the object of a Python class that it makes, a connection costs a tenth less.
            descriptor, peer = listening._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        except OSError as error:
            # Anything else is about a client that is gone already (accept(2), Error handling): the next one, please.
            return error.errno not in NO_DESCRIPTORS or self._shed(listening)
        sock = SocketType(_IPV6 if len(peer) == 4 else _IPV4, _STREAM, 0, descriptor)
        refusal = self.carried.refuses(self._loop.now_s, peer[0])
        if refusal is not None:
            self.carried.drop(refusal)
            reset(sock)
            return True
        sock.setblocking(False)
        self._take(sock, peer)
        return True

    def _shed(self, listening: socket.socket) -> bool:
        """Out of descriptors: take a client with the one in reserve, only to reset it. False when there is none."""
        if self._reserve < 0:
            self._reserve = _open_reserve()
            return False
        os.close(self._reserve)
        self._reserve = -1
        try:
            with contextlib.suppress(OSError):
                sock, _ = listening.accept()
                self.carried.drop(DropReason.NO_DESCRIPTORS)
                reset(sock)
                return True
        finally:
            self._reserve = _open_reserve()
        return False


def reset(sock: SocketType) -> None:
    """Close a socket that nothing watches, so that its peer is reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


def _open_reserve() -> int:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
