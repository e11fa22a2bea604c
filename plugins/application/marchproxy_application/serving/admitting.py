"""What comes before the first request: the PROXY header, the choice of a service by SNI, the TLS handshake.

Nothing is read before it is known whose it is: header and ClientHello are looked at in the socket (MSG_PEEK), so that
OpenSSL, or the backend of a service that is passed through, finds its ClientHello where it was.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Final, final

import structlog

from marchproxy_application.serving.client_connection import LINGER_S, ClientConnection
from marchproxy_application.tls.client_hello import (
    MOST_BYTES,
    MOST_RECORDS,
    ClientHello,
    HelloReader,
    Unread,
)
from marchproxy_application.tls.streams import cause_of, recv_raw, send_raw, shut_down_raw
from marchproxy_core.drops import DropReason
from marchproxy_core.relay.proxy_header import MOST_BYTES as MOST_HEADER_BYTES
from marchproxy_core.relay.proxy_header import BadHeader, decode_v2
from marchproxy_core.workers.ledger import ACTIVE

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import SocketType

    from marchproxy_application.serving.front import Front
    from marchproxy_core.relay.accepting import Address

log = structlog.get_logger()

_GONE: Final = 0x008 | 0x010 | 0x2000  # EPOLLERR | EPOLLHUP | EPOLLRDHUP
_MOST_HELLO_BYTES: Final = MOST_BYTES + 5 * (MOST_RECORDS + 1)
_LINGER_BYTES: Final = 1 << 18
_UNRECOGNIZED_NAME: Final = b"\x15\x03\x01\x00\x02\x02\x70"
"""A fatal alert (RFC 6066, section 3), before any keys."""
_METHODS: Final = (
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"PRI ",
)
_SPEAK_TLS: Final = b"this port speaks TLS\n"
_NOT_HTTP: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_SPEAK_TLS), _SPEAK_TLS)
)


@final
class Admission(ClientConnection):
    """A client that was let in and has not come to its first request; counted as open from here on."""

    __slots__ = ("_read_at", "_reader", "_step")

    def __init__(self, front: Front, sock: SocketType, peer: Address) -> None:
        """Take over an accepted, non-blocking socket."""
        super().__init__(front, sock, peer)
        self._reader = HelloReader()
        self._read_at = 0
        self._step: Callable[[], bool] = (
            self._read_header if front.admitter.has_header else self._after_header()
        )

    def on_event(self, events: int) -> None:
        """Go as far as what has come allows."""
        if events & _GONE:
            self.gone = True
        self.readable = True  # for who goes on from here: edge-triggered, nobody would tell again
        try:
            while not self.closed and self._step():
                pass
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self._fail(DropReason.TLS_FAILED, cause_of(error), self._last_words(error))

    def on_deadline(self, now_s: float) -> float | None:
        """Cut what takes too long."""
        del now_s
        if self._step == self._linger:
            self.close()
        else:
            self._tell(DropReason.READ_TIMEOUT, "took too long")
            self.cut(DropReason.READ_TIMEOUT)
        return None

    def go_away(self) -> None:
        """Have it ask: it came in time, and is closed after its answer. It does not take long."""
        self.loop.expire_by(self, self.loop.now_s + LINGER_S)

    def forget_count(self) -> None:
        """Leave the count of the listener's service, for that of another one."""
        self.carried.counts[self.carried.first_cell + ACTIVE] -= 1

    def _after_header(self) -> Callable[[], bool]:
        admitter = self.front.admitter
        if admitter.has_passed:
            return self._read_hello
        return self._shake if admitter.has_tls else self._begin

    def _read_header(self) -> bool:
        data = self.sock.recv(MOST_HEADER_BYTES, socket.MSG_PEEK)
        try:
            header = decode_v2(data)
        except BadHeader as error:
            self._tell(DropReason.PROXY_HEADER_INVALID, str(error))
            self.cut(DropReason.PROXY_HEADER_INVALID)
            return False
        if header is None:
            if self.gone or not data:
                self._tell(DropReason.PROXY_HEADER_INVALID, "ended within its header")
                self.cut(DropReason.PROXY_HEADER_INVALID)
            return False
        self.sock.recv(header.length)
        if header.source is not None:
            self.peer, self.proxied = header.source, header.destination
        if header.destination is not None:
            self.port = header.destination[1]
        self._step = self._after_header()
        return True

    def _read_hello(self) -> bool:
        data = self.sock.recv(_MOST_HELLO_BYTES, socket.MSG_PEEK)
        hello = self._reader.feed(data[self._read_at :])
        self._read_at = len(data)
        if isinstance(hello, ClientHello):
            return self._pick(hello.server_name)
        if hello is Unread.NEED_MORE:
            if self.gone or not data:
                self._tell(DropReason.TLS_FAILED, "ended within its ClientHello")
                self.cut(DropReason.TLS_FAILED)
            return False
        self._fail(DropReason.TLS_FAILED, hello.value, _NOT_HTTP if data.startswith(_METHODS) else b"")
        return False

    def _pick(self, server_name: str | None) -> bool:
        """Let the service that claims a name go on."""
        front = self.front
        service = front.service_of(server_name)
        if service is None:
            self._fail(DropReason.TLS_FAILED, f"no service for {server_name}", _UNRECOGNIZED_NAME)
            return False
        passed = front.passed.get(service)
        if passed is None:
            self._step = self._shake
            return True
        self.closed = True
        self.loop.expire_at(self, None)
        front.connections.discard(self)
        passed.take(self)
        return False

    def _shake(self) -> bool:
        if self.secured is None:
            context = self.front.admitter.context
            if context is None:
                self._tell(DropReason.TLS_FAILED, "no certificate can be used")
                self.cut(DropReason.TLS_FAILED)
                return False
            self.scheme = b"https"
            self.asked = self.front.admitter.asked
            self.secure(context)
        assert self.secured is not None
        if not self.secured.shake():
            return False
        self._step = self._begin
        return True

    def _begin(self) -> bool:
        self.address = self.peer[0].partition("%")[0].encode("ascii")
        protocol = self.secured.sock.selected_alpn_protocol() if self.secured is not None else None
        self.front.begin(self, protocol)
        return False

    def _linger(self) -> bool:
        data = recv_raw(self.sock, _LINGER_BYTES)
        self._read_at += len(data)
        if not data or self._read_at > _LINGER_BYTES:
            self.close()
        return True

    def _last_words(self, error: Exception) -> bytes:
        """Return what is said in the clear to who does not speak TLS; all others were told by OpenSSL."""
        is_http = isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST"
        return _NOT_HTTP if is_http else b""

    def _fail(self, reason: DropReason, error: str, last_words: bytes = b"") -> None:
        """End the connection, after what was said has gone."""
        if self._step == self._linger:
            self.close()
            return
        self.carried.drop(reason)
        self._tell(reason, error)
        try:
            if last_words:
                send_raw(self.sock, last_words)
            shut_down_raw(self.sock)
        except OSError:
            self.close()
            return
        self._step = self._linger
        self._read_at = 0
        self.loop.expire_at(self, self.loop.now_s + LINGER_S)
        with contextlib.suppress(OSError):
            while not self.closed and self._linger():
                pass

    def _tell(self, reason: DropReason, error: str) -> None:
        if self.carried.tells_all:
            log.debug(
                "handshake.failed",
                service=self.carried.work.service.name,
                client=f"{self.peer[0]} {self.peer[1]}",
                reason=reason.value,
                error=error,
            )
