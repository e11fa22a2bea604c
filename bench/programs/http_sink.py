"""A web server that takes bodies and throws them away; a program of its own, without packages.

``http_sink.py PORT`` answers every request with 200 once its body, of a Content-Length or in chunks, is there whole.
What is left of a body after its head is thrown away by the kernel (MSG_TRUNC, tcp(7)), so the sink costs little.
"""

from __future__ import annotations

import re
import select
import socket
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_MOST = 1 << 20


class Connection:
    """One client: what it has sent of a head or of chunks, and how much of a body is still to come."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._have = b""
        self._left = 0
        self._in_chunks = False
        self._in_body = False

    def take(self) -> bool:
        """Take what is there; returns whether the client goes on."""
        try:
            if self._left and not self._have:
                dropped = self._sock.recv_into(_ROOM, min(self._left, _MOST), socket.MSG_TRUNC)
                self._left -= dropped
                more = dropped > 0
            else:
                data = self._sock.recv(65536)
                self._have += data
                more = bool(data)
            self._advance()
        except ConnectionError:
            return False
        return more

    def _advance(self) -> None:
        while self._step():
            if not self._in_body:
                self._sock.sendall(_ANSWER)

    def _step(self) -> bool:
        """Go on by a head, a body or a chunk; returns whether it did: else more must come first."""
        if self._left:
            taken = min(self._left, len(self._have))
            self._have = self._have[taken:]
            self._left -= taken
            return self._left == 0 and self._end_of_piece()
        if self._in_body:
            return self._end_of_piece()
        head, end, rest = self._have.partition(b"\r\n\r\n")
        if not end:
            return False
        self._have = rest
        head += b"\r\n"
        length = _LENGTH.search(head)
        self._in_chunks = _CHUNKED.search(head) is not None
        self._left = int(length[1]) if length else 0
        self._in_body = self._in_chunks or self._left > 0
        return True

    def _end_of_piece(self) -> bool:
        if not self._in_chunks:
            self._in_body = False
            return True
        line, end, rest = self._have.removeprefix(b"\r\n").partition(b"\r\n")
        if not end:
            return False
        size = int(line.partition(b";")[0], 16)
        if size:
            self._have, self._left = rest, size
            return True
        if not rest.startswith(b"\r\n"):  # trailers are none of a generator's
            return False
        self._have, self._in_body = rest[2:], False
        return True


_ROOM = bytearray(_MOST)


def serve(port: int) -> None:
    """Accept, take and answer, for ever."""
    with socket.create_server(("0.0.0.0", port), backlog=4096) as listener, select.epoll() as epoll:
        epoll.register(listener.fileno(), select.EPOLLIN)
        connections: dict[int, tuple[socket.socket, Connection]] = {}
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    sock, _ = listener.accept()
                    connections[sock.fileno()] = sock, Connection(sock)
                    epoll.register(sock.fileno(), select.EPOLLIN)
                elif not connections[fd][1].take():
                    connections.pop(fd)[0].close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
