"""What a client of a chain sends, and the answers that it gets."""

from __future__ import annotations

import re
import socket
from contextlib import suppress

import attrs
import h11

LONGEST_S = 5.0
_INTERIM = re.compile(rb"(?:HTTP/1\.1 1[0-9]{2} [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)+")


@attrs.frozen
class Answer:
    """One answer."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def is_of_backend(self) -> bool:
        """Whether it came through us, and is none of our own."""
        return any(name == b"via" for name, _ in self.fields)


def converse(port: int, raw: bytes, *, step: int = 1 << 20) -> bytes:
    """Send bytes and the end of them; return everything that comes back.

    Args:
        port: Of 127.0.0.1.
        raw: The bytes.
        step: How many of them are sent at once.
    """
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST_S) as sock:
        with suppress(OSError):  # refused before all of it was sent: a reset, or no connection any more
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(raw), step):
                sock.sendall(raw[at : at + step])
            sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while data := sock.recv(65536):
                received += data
    return received


def read_answers(received: bytes, methods: list[bytes]) -> list[Answer]:
    """Read answers as h11 does, which is strict.

    Args:
        received: Everything that came back.
        methods: Of the requests, in order; what comes behind their answers answers a request that had no method.
    """
    answers = []
    left = iter(methods)
    while received:
        answer, received = _read_answer(received, next(left, b"GET"))
        if answer is not None:
            answers.append(answer)
    return answers


def _read_answer(received: bytes, method: bytes) -> tuple[Answer | None, bytes]:
    """Return an answer, and what comes behind it; None for interim ones that none follows."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(
        h11.Request(method="HEAD" if method == b"HEAD" else "GET", target="/", headers=[("Host", "a")])
    )
    client.send(h11.EndOfMessage())
    client.receive_data(received)
    client.receive_data(b"")
    head, body = None, b""
    try:
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
    except h11.RemoteProtocolError:
        assert head is None, received
        assert _INTERIM.fullmatch(received), received
        return None, b""
    assert head is not None
    return Answer(head.status_code, tuple(head.headers), body), client.trailing_data[0]
