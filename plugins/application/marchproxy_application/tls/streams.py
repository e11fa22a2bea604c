"""A connection's TLS as streams read and write it: what OpenSSL waits for is what the socket waits for.

Rests on how a non-blocking SSLSocket behaves (CPython 3.11, OpenSSL 3.0; see ``test_sockets.py`` of the tests).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from socket import SocketType

RECORD_BYTES: Final = 1 << 14
"""The most that one record has (RFC 8446, section 5.1)."""
_MOST_RECORDS: Final = 4
"""How many full ones are read at once."""
_CUT: Final = "ended without a close_notify"


@final
class Secured:
    """Reads and writes through a socket's TLS; where the socket would block, so does this, as BlockingIOError."""

    __slots__ = ("_failed", "_has_ended", "sock")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        """Begin with a socket that was wrapped by :func:`wrapped`."""
        self.sock = sock
        self._failed: OSError | None = None
        self._has_ended = False

    def shake(self) -> bool:
        """Go on with the handshake; true when it is over.

        Raises:
            OSError: It failed, ssl.SSLError where TLS says why.
            ValueError: The name that was asked for cannot be one.
        """
        try:
            self.sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    def recv(self, size: int) -> bytes:
        """Read no more than so many bytes, empty at the end that the peer has announced.

        Raises:
            BlockingIOError: There is nothing for now.
            OSError: The connection broke, or ended without an announcement.
        """
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        data = self._record(min(size, RECORD_BYTES))
        if size <= RECORD_BYTES or len(data) < RECORD_BYTES:
            return data
        pieces = [data]
        while len(data) == RECORD_BYTES and len(pieces) < _MOST_RECORDS:
            try:
                data = self._record(RECORD_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._failed = error
                break
            pieces.append(data)
        return b"".join(pieces)

    def send(self, data: bytes | memoryview) -> int:
        """Send what is taken of it; the rest is to be sent next, and nothing else.

        A record that was not taken is encrypted already, and OpenSSL wants to see it again as it was. It is cut off
        the front in the same way each time.

        Raises:
            BlockingIOError: Nothing is taken for now.
            OSError: The connection broke.
        """
        if self._has_ended:
            # An SSLSocket that was unwrapped would send in the clear.
            raise BrokenPipeError(errno.EPIPE, "the end was said already")
        size = len(data)
        if size <= RECORD_BYTES:
            return self._send(data)
        view = memoryview(data)
        sent = 0
        try:
            while sent < size:
                sent += self._send(view[sent : sent + RECORD_BYTES])
        except BlockingIOError:
            if not sent:
                raise
        return sent

    def is_quiet(self) -> bool:
        """Whether the peer has said nothing but what is TLS's own, as session tickets, and is still there."""
        try:
            self.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def say_end(self) -> None:
        """Announce the end of what we send; nothing may wait to be sent."""
        if not self._has_ended:
            self._has_ended = True
            # OpenSSL looks for the peer's announcement too, which need not have come.
            with contextlib.suppress(OSError, ValueError):
                self.sock.unwrap()

    def _record(self, size: int) -> bytes:
        try:
            return self.sock.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            raise ConnectionResetError(errno.ECONNRESET, _CUT) from None

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None


def wrapped(
    sock: SocketType,
    context: ssl.SSLContext,
    *,
    server_name: str | None = None,
    session: ssl.SSLSession | None = None,
) -> Secured:
    """Put TLS on a connected, non-blocking socket, which is detached from its object, and closed if that fails.

    Args:
        sock: The socket.
        context: A server's if no name is given, else a client's.
        server_name: Whom a client asks for, and whose certificate it wants to see; a name or an IP address.
        session: One of this context and name, to be resumed by a client.

    Raises:
        OSError: The peer is gone.
        ValueError: The name cannot be one.
    """
    if server_name is not None:
        server_name.encode("idna")  # what wrap_socket does with it when it is too late to go back
    tls = context.wrap_socket(
        sock,  # type: ignore[arg-type]  # the base of socket.socket, with all that is used of it
        server_side=server_name is None,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
        server_hostname=server_name,
        session=session,
    )
    return Secured(tls)


def cause_of(error: OSError | ValueError) -> str:
    """Say why TLS failed, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "ended within its handshake"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def recv_raw(sock: SocketType, size: int) -> bytes:
    """Read past TLS, for what is thrown away."""
    return socket.SocketType.recv(sock, size)


def send_raw(sock: SocketType, data: bytes) -> int:
    """Write past TLS, to who does not speak it."""
    return socket.SocketType.send(sock, data)


def shut_down_raw(sock: SocketType) -> None:
    """Send a FIN. ``SSLSocket.shutdown`` would forget its TLS, and read and send in the clear from then on."""
    socket.SocketType.shutdown(sock, socket.SHUT_WR)
