"""The application behind nginx, Apache and lighttpd, which pass it what they saw by SCGI."""

from __future__ import annotations

import socketserver
from pathlib import Path
from typing import BinaryIO, cast

from tests.suites.chains.apps import cgi_fields
from tests.suites.chains.telling import tell


class Scgi(socketserver.ThreadingTCPServer):
    """Serves at a port of 127.0.0.1, in threads of this process."""

    daemon_threads = True

    def __init__(self, told: Path) -> None:
        """Listen.

        Args:
            told: The socket that it tells of each request.
        """
        self.told = str(told)
        super().__init__(("127.0.0.1", 0), _Request)
        self.port: int = self.server_address[1]


class _Request(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        read = cast("BinaryIO", self.rfile)
        environ = _environ(read)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = read.read(length)
        if len(body) < length:
            return  # its server has lost the client
        assert isinstance(self.server, Scgi)
        answer = tell(
            self.server.told, environ["REQUEST_METHOD"], environ["REQUEST_URI"], body, cgi_fields(environ)
        )
        self.wfile.write(
            b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )


def _environ(read: BinaryIO) -> dict[str, str]:
    size = b""
    while (byte := read.read(1)) != b":":
        assert byte, "the server closed before it said anything"
        size += byte
    words = read.read(int(size)).decode("latin-1").split("\0")
    assert read.read(1) == b","
    return dict(zip(words[0:-1:2], words[1::2], strict=True))
