"""One socket as connections see it: what has come, what still waits to go, and the loop's events in between.

Watched edge-triggered from first to last, so a stream remembers what epoll told it: ``readable`` until a read comes up
short, ``writable`` until a write does (epoll(7), questions 9 and 10).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from marchproxy_application.tls.streams import Secured, recv_raw, shut_down_raw, wrapped
from marchproxy_core.relay.accepting import RESET_ON_CLOSE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from socket import SocketType

    from marchproxy_core.relay.loop import Loop

CHUNK_BYTES: Final = 1 << 14
"""What is read at once, until a read fills it."""
BULK_BYTES: Final = 1 << 18
MOST_WAITING: Final = 1 << 18
"""How much may wait to be sent before whoever has more is asked to stop."""

_OUT: Final = select.EPOLLOUT
_ERR: Final = select.EPOLLERR
_GONE: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_ARRIVED: Final = select.EPOLLIN | _GONE
WATCH: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Stream:
    """Base of everything that has a connected socket; a subclass says what happens when something comes.

    Reading and writing never raise: what fails is told once through :meth:`on_broken`.
    """

    __slots__ = (
        "_chunk",
        "_recv",
        "_send",
        "_waiting",
        "closed",
        "due_tick",
        "fd",
        "gone",
        "is_secure",
        "loop",
        "readable",
        "secured",
        "sock",
        "taken",
        "unsent",
        "unsent_since_s",
        "waits_since_s",
        "writable",
    )

    def __init__(self, loop: Loop, sock: SocketType) -> None:
        """Take over a non-blocking socket, which :meth:`close` closes; nothing is watched yet."""
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.is_secure = False
        self.secured: Secured | None = None
        self._recv: Callable[[int], bytes] = sock.recv
        self._send: Callable[[bytes | memoryview], int] = sock.send
        self._chunk = CHUNK_BYTES
        self._waiting: deque[bytes | memoryview] = deque()
        self.unsent = 0
        """Bytes that wait to be sent."""
        self.unsent_since_s = 0.0
        """Since when the peer has taken nothing of them."""
        self.waits_since_s = 0.0
        """Since when there have always been some."""
        self.taken = 0
        """Bytes that the peer has taken since then."""
        self.readable = False
        self.writable = True
        self.gone = False
        """The peer has shut down or reset: a short read is no proof of emptiness."""
        self.closed = False
        self.due_tick = 0

    def on_readable(self) -> None:
        """Read on, since something has come; called again only when more comes."""
        raise NotImplementedError

    def on_drained(self) -> None:
        """Go on, since all that waited is sent."""
        raise NotImplementedError

    def on_broken(self, error: OSError) -> None:
        """End, since the socket failed; it is still open."""
        raise NotImplementedError

    def on_write_broken(self, error: OSError) -> None:
        """End, since the peer takes nothing any more; the same, unless it may have said something before."""
        self.on_broken(error)

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        if events & _ARRIVED:
            if events & _GONE:
                self.gone = True
            self.readable = True
            self.on_readable()
        if events & _OUT and not self.writable and not self.closed:
            self.writable = True
            if self.unsent:
                self._flush()

    def read(self) -> bytes | None:
        """Return what has come, empty at the end of the stream; None when nothing has, or the socket failed."""
        try:
            data = self._recv(self._chunk)
        except BlockingIOError:
            self.readable = False
            return None
        except OSError as error:
            self.readable = False
            self.on_broken(error)
            return None
        if len(data) == self._chunk:
            self._chunk = BULK_BYTES
        elif not self.gone and not self.is_secure:
            self.readable = False
        return data

    def read_little(self) -> None:
        """Read a chunk at once from here on, as what comes begins with a head."""
        self._chunk = CHUNK_BYTES

    def read_at_most(self, count: int) -> bytes | None:
        """As :meth:`read`, but no more than so many bytes."""
        kept, self._chunk = self._chunk, min(count, BULK_BYTES)
        data = self.read()
        self._chunk = kept
        return data

    def write(self, data: bytes | memoryview) -> None:
        """Send, or keep what the kernel does not take."""
        if self.unsent:
            self._waiting.append(data)
            self.unsent += len(data)
            return
        try:
            sent = self._send(data) if self.writable else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.on_write_broken(error)
            return
        if sent < len(data):
            self.writable = False
            self._waiting.append(memoryview(data)[sent:])
            self.unsent = len(data) - sent
            self.taken = 0
            self.unsent_since_s = self.waits_since_s = self.loop.now_s

    def write_no_more(self) -> None:
        """Forget what waits, and whatever is written from here on."""
        self._waiting.clear()
        self.unsent = 0
        self._send = len

    def secure(
        self,
        context: ssl.SSLContext,
        *,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Secured:
        """Speak TLS from here on; the handshake is for the caller to go through. Arguments as for :func:`wrapped`.

        Raises:
            OSError: The peer is gone; the stream is to be closed, as after the next one.
            ValueError: The name cannot be one.
        """
        try:
            secured = wrapped(self.sock, context, server_name=server_name, session=session)
        except OSError:
            if self.sock.fileno() < 0:
                with contextlib.suppress(OSError):  # closed already, which took it out of epoll
                    self.loop.forget(self.fd)
            raise
        self.secured = secured
        self.sock = secured.sock
        self._recv, self._send = secured.recv, secured.send
        self.is_secure = True
        return secured

    def adopt(self, before: Stream) -> None:
        """Go on with another stream's socket, which that one forgets; nothing waits in it."""
        self.is_secure, self.secured = before.is_secure, before.secured
        self._recv, self._send = before._recv, before._send
        self.readable, self.writable, self.gone = before.readable, before.writable, before.gone
        before.closed = True
        self.loop.expire_at(before, None)

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes; nothing may wait.

        Raises:
            OSError: It is gone.
        """
        if self.secured is not None:
            self.secured.say_end()
        shut_down_raw(self.sock)

    def read_to_forget(self) -> None:
        """Read without a look at TLS from here on: what comes is thrown away."""
        if self.secured is not None:
            sock = self.sock
            self._recv = lambda size: recv_raw(sock, size)

    @property
    def is_full(self) -> bool:
        """Whether so much waits that whoever has more should stop."""
        return self.unsent > MOST_WAITING

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once; what waits is lost."""
        if self.closed:
            return
        self.closed = True
        self.readable = self.writable = False
        self.loop.expire_at(self, None)
        if self.sock.fileno() < 0:
            return  # TLS has closed it
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        elif self.secured is not None and not self.unsent:
            self.secured.say_end()
        self.loop.close_socket(self.sock, is_copy=False)
        self._waiting.clear()
        self.unsent = 0

    def on_deadline(self, now_s: float) -> float | None:
        """Look whether time is up; a subclass's to say."""
        raise NotImplementedError

    def socket_error(self) -> OSError | None:
        """Return the error that the socket has, None when it has none; asking takes it away."""
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(number, os.strerror(number)) if number else None

    def _flush(self) -> None:
        waiting = self._waiting
        while waiting:
            data = waiting[0]
            try:
                sent = self._send(data)
            except BlockingIOError:
                self.writable = False
                return
            except OSError as error:
                self.on_write_broken(error)
                return
            self.unsent -= sent
            self.taken += sent
            self.unsent_since_s = self.loop.now_s
            if sent < len(data):
                waiting[0] = memoryview(data)[sent:]
                self.writable = False
                return
            waiting.popleft()
        self.on_drained()


def what(error: OSError) -> str:
    """Return an error in words, for the log."""
    return error.strerror or errno.errorcode.get(error.errno or 0, type(error).__name__)
