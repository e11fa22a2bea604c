"""What a backend saw of a request, told to the test before the backend answers: one datagram each.

A datagram between local sockets is there when ``send`` returns, so whoever has read the answer has the record, too.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import attrs

WHERE = "CHAINS_TELL"
"""Names, in a backend's environment, the socket that it tells."""
_MOST_BYTES = 1 << 18


@attrs.frozen
class Seen:
    """A request as a backend's application got it."""

    method: str
    target: str
    """As far as the server passes it on: some decode it first."""
    host: str
    body: bytes
    fields: tuple[tuple[str, str], ...]
    """Names in small letters; with underscores for dashes from servers that pass fields on as CGI does."""


def answer_to(method: str, target: str) -> bytes:
    """Return the body of a backend's answer, by which a client knows that it is to its own request."""
    return f"saw {method} {target[:100]}".encode("latin-1")


def tell(where: str, method: str, target: str, body: bytes, fields: Iterable[tuple[str, str]]) -> bytes:
    """Tell the test of a request; return the answer's body."""
    seen = [method, target, body.decode("latin-1"), list(fields)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_BYTES)
        sock.sendto(json.dumps(seen).encode(), where)
    return answer_to(method, target)


def tell_by_environment(method: str, target: str, body: bytes, fields: Iterable[tuple[str, str]]) -> bytes:
    """Tell the test of a request, in a backend that was started for it."""
    return tell(os.environ[WHERE], method, target, body, fields)


class Told:
    """The test's end of it."""

    def __init__(self, path: Path) -> None:
        """Listen at a path; to be closed."""
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._sock.bind(str(path))

    def take(self) -> list[Seen]:
        """Return what was told since."""
        found = []
        while True:
            try:
                data = self._sock.recv(_MOST_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            method, target, body, fields = json.loads(data)
            pairs = tuple((name, value) for name, value in fields)
            host = next((value for name, value in pairs if name == "host"), "")
            found.append(Seen(method, target, host, body.encode("latin-1"), pairs))

    def close(self) -> None:
        """Stop listening."""
        self._sock.close()
