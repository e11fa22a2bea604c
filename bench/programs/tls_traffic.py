"""New TLS 1.3 connections, one request each; a program of its own, without packages.

``tls_traffic.py IP PORT PATH SECONDS CONNECTIONS full|resumed`` keeps CONNECTIONS under way, each from the TCP
handshake to the answer's end, and prints ``{"count", "resumed", "seconds", "p50_us", "p99_us"}``. Resumed ones come
with a ticket of the server's; a server that does not take it has a full handshake, which is counted as such.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Generator

_READ_BYTES = 65536
_FEWEST_BYTES = 60
"""An answer with its 50 bytes of body has more."""


_Waiting = dict[int, Generator[tuple[int, int], None, None]]


class Tally:
    """What came of the connections."""

    def __init__(self) -> None:
        self.took_us: list[float] = []
        self.resumed = 0
        self.ticket: ssl.SSLSession | None = None


def connection(
    context: ssl.SSLContext, address: tuple[str, int], request: bytes, tally: Tally, *, resume: bool
) -> Generator[tuple[int, int], None, None]:
    """Make one connection; yields a descriptor and the epoll events that it waits for.

    Raises:
        ConnectionError: There was no answer.
        ssl.SSLError: No handshake.
    """
    began = time.monotonic()
    with contextlib.closing(socket.socket()) as plain:
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = plain.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise ConnectionError(f"not connected: {errno.errorcode[code]}")
        yield plain.fileno(), select.EPOLLOUT
        secure = context.wrap_socket(
            plain,
            do_handshake_on_connect=False,
            server_hostname="bench.example",
            session=tally.ticket if resume else None,
        )
        with contextlib.closing(secure):
            yield from _until_done(secure, secure.do_handshake)
            secure.send(request)
            answer = b""
            while True:
                data = yield from _until_done(secure, lambda: secure.recv(_READ_BYTES))
                if not data:
                    break
                answer += data
            if not answer.startswith(b"HTTP/1.1 200 ") or len(answer) < _FEWEST_BYTES:
                raise ConnectionError(f"no answer: {answer[:200]!r}")
            tally.resumed += bool(secure.session_reused)
            if resume and tally.ticket is None:
                tally.ticket = secure.session
    tally.took_us.append((time.monotonic() - began) * 1e6)


def _until_done(
    secure: ssl.SSLSocket, step: Callable[[], bytes | None]
) -> Generator[tuple[int, int], None, bytes | None]:
    """Repeat a step that TLS says wants to read or to write first; returns what it returns, nothing at the end."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            yield secure.fileno(), select.EPOLLIN
        except ssl.SSLWantWriteError:
            yield secure.fileno(), select.EPOLLOUT
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return None


def drive(
    ip: str, port: int, path: str, seconds: float, connections: int, *, resume: bool
) -> dict[str, float]:
    """Keep connections coming for a while and return what came of them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The certificate was signed by itself; the handshake's signature is checked all the same.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    request = f"GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n".encode()
    tally = Tally()
    epoll = select.epoll()

    def start() -> Generator[tuple[int, int], None, None]:
        return connection(context, (ip, port), request, tally, resume=resume)

    if resume:  # the first one brings the ticket
        _finish_alone(start(), epoll)
        tally.took_us.clear()
        if tally.ticket is None or not tally.ticket.has_ticket:
            raise ConnectionError("the server gave no ticket")
    began = time.monotonic()
    waiting: _Waiting = {}
    for _ in range(connections):
        _resume(start(), waiting, epoll)
    while time.monotonic() < began + seconds:
        for fd, _ in epoll.poll():
            if not _resume(waiting.pop(fd), waiting, epoll):
                _resume(start(), waiting, epoll)
    ended = time.monotonic()
    took_us = sorted(tally.took_us)
    return {
        "count": len(took_us),
        "resumed": tally.resumed,
        "seconds": ended - began,
        "p50_us": took_us[len(took_us) // 2],
        "p99_us": took_us[len(took_us) * 99 // 100],
    }


def _resume(one: Generator[tuple[int, int], None, None], waiting: _Waiting, epoll: select.epoll) -> bool:
    """Let a connection go on until it waits; returns whether it does, else it is finished."""
    for fd, events in one:
        # Once only (EPOLLONESHOT): a descriptor that was closed has left the set by itself, and its number comes again.
        try:
            epoll.modify(fd, events | select.EPOLLONESHOT)
        except FileNotFoundError:
            epoll.register(fd, events | select.EPOLLONESHOT)
        waiting[fd] = one
        return True
    return False


def _finish_alone(one: Generator[tuple[int, int], None, None], epoll: select.epoll) -> None:
    waiting: _Waiting = {}
    while _resume(one, waiting, epoll):
        epoll.poll()
        waiting.clear()


if __name__ == "__main__":
    match sys.argv[1:]:
        case [ip, port, path, seconds, connections, ("full" | "resumed") as kind]:
            report = drive(ip, int(port), path, float(seconds), int(connections), resume=kind == "resumed")
            sys.stdout.write(json.dumps(report) + "\n")
        case _:
            sys.exit(__doc__)
