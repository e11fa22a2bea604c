"""The socket pair between the control process and one worker: framed messages, with descriptors one way.

A frame is a length of four bytes, then the body. Down go pickled messages, up goes JSON. SCM_RIGHTS is never
merged over message boundaries (unix(7)), so descriptors arrive in the order of the frames they came with.
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, final

from marchproxy_core.workers.messages import Lend

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from marchproxy_core.workers.messages import Message

Report = dict[str, object]

_LENGTH = struct.Struct("!I")
_CHUNK_BYTES = 1 << 16
_MOST_DESCRIPTORS = 253  # SCM_MAX_FD, include/net/scm.h
MOST_REPORT_BYTES = 1 << 16
"""A worker that says more at once is broken."""


def frame(body: bytes) -> bytes:
    """Return the body with its length before it."""
    return _LENGTH.pack(len(body)) + body


@final
class Frames:
    """Cuts a stream of bytes into bodies."""

    def __init__(self, most_bytes: int = 1 << 30) -> None:
        """Refuse bodies longer than ``most_bytes``."""
        self._data = bytearray()
        self._most_bytes = most_bytes

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that are complete with these bytes.

        Raises:
            ValueError: A body is longer than allowed; the stream is of no more use.
        """
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > self._most_bytes:
                raise ValueError(f"a message of {length} bytes, want at most {self._most_bytes}")
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            body = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield body


def parse_report(body: bytes) -> Report:
    """Read what a worker said.

    Raises:
        ValueError: It is no JSON object.
    """
    report = json.loads(body)
    if not isinstance(report, dict):
        raise ValueError("a report is a JSON object")  # noqa: TRY004 - bad input, not a bad call
    return report


@final
class WorkerChannel:
    """The worker's end; for one thread. Reading never blocks; the owner closes it."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected unix socket."""
        sock.setblocking(False)
        self._sock = sock
        self._frames = Frames()
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        """Return the descriptor to wait for; readable when :meth:`receive` has something."""
        return self._sock.fileno()

    def receive(self) -> list[tuple[Message, int | None]]:
        """Return all messages that are here, each :class:`Lend` with its descriptor, which the caller closes.

        Raises:
            EOFError: The control process closed its end, or is dead.
        """
        messages: list[tuple[Message, int | None]] = []
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    _CHUNK_BYTES, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return messages
            except ConnectionResetError:
                data = b""
            if not data:
                if messages:
                    return messages  # the end is found at the next call
                raise EOFError
            for _level, _type, descriptors in ancillary:
                whole = len(descriptors) - len(descriptors) % 4
                self._descriptors.extend(memoryview(descriptors[:whole]).cast("i"))
            for body in self._frames.feed(data):
                message: Message = pickle.loads(body)
                messages.append((message, self._descriptors.popleft() if isinstance(message, Lend) else None))

    def report(self, report: Mapping[str, object]) -> bool:
        """Say something to the control process; false when it is dead, or does not listen just now."""
        data = frame(json.dumps(report).encode())
        try:
            # All or nothing for a short message: a stream socket takes it whole or is full.
            return self._sock.send(data) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket, and the descriptors that nobody asked for."""
        for descriptor in self._descriptors:
            socket.close(descriptor)
        self._descriptors.clear()
        self._sock.close()
