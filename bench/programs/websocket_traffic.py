"""WebSocket generator and echo server (RFC 6455); a program of its own, without packages.

``websocket_traffic.py serve PORT`` takes WebSockets and sends each message back; it answers 200 to other requests.
``websocket_traffic.py drive IP PORT SECONDS CONNECTIONS SIZE`` opens CONNECTIONS, has one message of SIZE bytes, at
most 125, under way on each, and prints ``{"echoed", "seconds", "p50_us", "p99_us"}``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import select
import socket
import sys
import time

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"\r\nsec-websocket-key:[ \t]*([A-Za-z0-9+/=]+)[ \t]*\r\n", re.IGNORECASE)
_CLOSE = 8
_MASK = b"\x5a\x17\xc3\x88"
_LARGEST = 125
_READ_BYTES = 65536


class Echo:
    """One client of the server."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._have = b""
        self._is_open = False

    def take(self) -> bool:
        """Take what is there and answer it; returns whether the client goes on."""
        try:
            data = self._sock.recv(_READ_BYTES)
            self._have += data
            if not self._is_open:
                self._greet()
            return bool(data) and self._echo()
        except ConnectionError:
            return False

    def _greet(self) -> None:
        head, end, rest = self._have.partition(b"\r\n\r\n")
        if not end:
            return
        key = _KEY.search(head + b"\r\n")
        if key is None:
            self._sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
            self._have = rest
            return
        answer = base64.b64encode(hashlib.sha1(key[1] + _GUID, usedforsecurity=False).digest())
        self._sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + answer + b"\r\n\r\n"
        )
        self._have, self._is_open = rest, True

    def _echo(self) -> bool:
        have, answers, at = self._have, b"", 0
        goes_on = True
        while self._is_open and len(have) >= at + 6:
            size = have[at + 1] & 0x7F
            end = at + 6 + size
            if len(have) < end:
                break
            payload = _masked(have[at + 6 : end], have[at + 2 : at + 6])
            answers += bytes((have[at], size)) + payload
            goes_on = goes_on and have[at] & 0x0F != _CLOSE
            at = end
        self._have = have[at:]
        if answers:
            self._sock.sendall(answers)
        return goes_on


def serve(port: int) -> None:
    """Accept and echo, for ever."""
    with socket.create_server(("0.0.0.0", port), backlog=4096) as listener, select.epoll() as epoll:
        epoll.register(listener.fileno(), select.EPOLLIN)
        clients: dict[int, tuple[socket.socket, Echo]] = {}
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    sock, _ = listener.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    clients[sock.fileno()] = sock, Echo(sock)
                    epoll.register(sock.fileno(), select.EPOLLIN)
                elif not clients[fd][1].take():
                    clients.pop(fd)[0].close()


def drive(ip: str, port: int, seconds: float, connections: int, size_bytes: int) -> dict[str, float]:
    """Keep a message under way on each connection for a while; return what came back and how long each took.

    Raises:
        ConnectionError: One was refused or closed, or did not give back what was sent.
    """
    payload = b"m" * size_bytes
    message = bytes((0x82, 0x80 | size_bytes)) + _MASK + _masked(payload, _MASK)
    echo = bytes((0x82, size_bytes)) + payload
    took_us: list[float] = []
    with select.epoll() as epoll:
        sockets = {}
        for sock in [_open(ip, port) for _ in range(connections)]:
            epoll.register(sock.fileno(), select.EPOLLIN)
            sockets[sock.fileno()] = sock
        began = now = time.monotonic()
        sent = dict.fromkeys(sockets, began)
        have = dict.fromkeys(sockets, b"")
        for sock in sockets.values():
            sock.send(message)
        while now < began + seconds:
            for fd, _ in epoll.poll():
                got = have[fd] + sockets[fd].recv(_READ_BYTES)
                now = time.monotonic()
                if got == echo:
                    took_us.append((now - sent[fd]) * 1e6)
                    sent[fd] = now
                    have[fd] = b""
                    sockets[fd].send(message)
                elif got == have[fd] or not echo.startswith(got):
                    raise ConnectionError(f"closed, or no echo: {got[:100]!r}")
                else:
                    have[fd] = got
        for sock in sockets.values():
            sock.close()
    took_us.sort()
    return {
        "echoed": len(took_us),
        "seconds": now - began,
        "p50_us": took_us[len(took_us) // 2],
        "p99_us": took_us[len(took_us) * 99 // 100],
    }


def _open(ip: str, port: int) -> socket.socket:
    sock = socket.create_connection((ip, port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(
        f"GET /echo HTTP/1.1\r\nHost: {ip}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(_READ_BYTES)
        head += data
        if not data or not head.startswith(b"HTTP/1.1 101 "[: len(head)]):
            raise ConnectionError(f"no WebSocket: {head[:200]!r}")
    return sock


def _masked(data: bytes, mask: bytes) -> bytes:
    """Return the data masked, or unmasked: it is the same."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["drive", ip, port, seconds, connections, size] if 0 < int(size) <= _LARGEST:
            report = drive(ip, int(port), float(seconds), int(connections), int(size))
            sys.stdout.write(json.dumps(report) + "\n")
        case _:
            sys.exit(__doc__)
