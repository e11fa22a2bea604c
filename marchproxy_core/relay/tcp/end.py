"""One end of a connection, client or backend: what is read here goes to the other end.

The hot path of the tier. Both sockets are watched edge-triggered from first to last, so each end remembers what
epoll told it: ``readable`` until a read comes up short, ``writable`` until a write does (epoll(7), questions 9
and 10). Small messages go by read(2) and write(2); once a read fills its buffer, bytes are spliced through a pipe.
Bytes are read only when nothing waits: at most CHUNK_BYTES, or what fits a pipe, wait in each direction.
"""

from __future__ import annotations

import os
import select
import socket
from socket import SocketType
from typing import TYPE_CHECKING, Final, final

from marchproxy_core.relay.tcp.pipes import PIPE_BYTES

if TYPE_CHECKING:
    from marchproxy_core.relay.tcp.connection import Connection
    from marchproxy_core.relay.tcp.pipes import Pipe

CHUNK_BYTES = 1 << 16
BURST_BYTES = 1 << 20
"""How much one direction may move before others get their turn."""
_MOST_READS = 4

_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_ERR: Final = select.EPOLLERR | select.EPOLLHUP
GONE: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_ARRIVED: Final = _IN | GONE
WATCH: Final = _IN | _OUT | select.EPOLLRDHUP | select.EPOLLET

# SPLICE_F_MORE is left out: the last bytes of an answer must not wait for more.
_SPLICE: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE

_read = os.read
_write = os.write
_splice = os.splice


@final
class End:
    """A socket of a connection, and the bytes that were read from it and still wait for the other end."""

    __slots__ = (
        "bulk",
        "cell",
        "connection",
        "ended",
        "fd",
        "gone",
        "held",
        "loop",
        "moved",
        "other",
        "pipe",
        "readable",
        "sock",
        "waiting",
        "waiting_since_s",
        "writable",
    )

    def __init__(self, connection: Connection, sock: SocketType, cell: int) -> None:
        """Take over a connected, non-blocking socket; ``cell`` counts the bytes that came from it."""
        self.connection = connection
        self.loop = connection.service.loop
        self.other: End = NOBODY
        self.sock = sock
        self.fd = sock.fileno()
        self.cell = cell
        self.readable = False
        self.writable = False
        self.gone = False
        """The peer has shut down or reset: read until the end, a short read is no proof of emptiness."""
        self.ended = False
        """Its end of stream was read and passed on."""
        self.bulk = False
        self.waiting = False
        self.waiting_since_s = 0.0
        self.held = b""
        self.pipe: Pipe | None = None
        self.moved = 0
        """Bytes read here and taken by the other end."""

    @classmethod
    def nobody(cls) -> End:
        """Make an end that takes nothing and has nothing: the other end while there is none."""
        end = cls.__new__(cls)
        end.readable = end.writable = end.waiting = False
        end.ended = True
        end.other = end
        return end

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        if events & _ARRIVED:
            if events & GONE:
                if events & _ERR and self._is_broken():
                    return
                self.gone = True
            if not self.ended:
                self.readable = True
                if self.other.writable:
                    self.forward()
        if events & _OUT and not self.writable:
            self.writable = True
            self.other.forward()

    def forward(self) -> None:
        """Move what is here to the other end, as far as both allow, but no more than a burst."""
        if self.waiting and not self._flush():
            return
        other = self.other
        for _ in range(_MOST_READS):
            if not self.readable or not other.writable:
                return
            if self.bulk:
                self._pour()
                return
            try:
                data = _read(self.fd, CHUNK_BYTES)
            except BlockingIOError:
                self.readable = False
                return
            except OSError as error:
                self.connection.broke(self, error)
                return
            if not data:
                self._end()
                return
            try:
                sent = _write(other.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.connection.broke(other, error)
                return
            # _count(), written out: this is the path of every small message.
            connection = self.connection
            connection.touched_s = self.loop.now_s
            connection.counts[self.cell] += sent
            self.moved += sent
            size = len(data)
            if size == CHUNK_BYTES:
                self.bulk = True
            elif not self.gone:
                self.readable = False
            if sent < size:
                self.hold(data[sent:])
                return
        self.loop.again(self.forward)

    def hold(self, data: bytes) -> None:
        """Keep bytes until the other end takes them."""
        self.held = data
        self._wait()

    def give_up(self) -> None:
        """Read no more, and forget what waits: the other end is gone."""
        self.readable = self.waiting = False
        self.ended = True
        self.held = b""
        if self.pipe is not None:
            self.connection.service.pipes.give(self.pipe)
            self.pipe = None

    def release(self) -> None:
        """Forget everything, and the other end; the connection is over."""
        self.give_up()
        self.writable = False
        self.other = NOBODY

    def _count(self, sent: int) -> None:
        connection = self.connection
        connection.touched_s = self.loop.now_s
        connection.counts[self.cell] += sent
        self.moved += sent

    def _wait(self) -> None:
        self.waiting = True
        self.other.writable = False
        self.waiting_since_s = self.loop.now_s
        self.connection.blocked()

    def _flush(self) -> bool:
        """Move what waits; true when nothing waits any more."""
        if not self.other.writable:
            return False
        if self.pipe is not None:
            pipe, self.pipe = self.pipe, None
            self.waiting = False
            if not self._empty(pipe):
                return False
            self.connection.service.pipes.give(pipe)
            return True
        try:
            sent = _write(self.other.fd, self.held)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.connection.broke(self.other, error)
            return False
        self._count(sent)
        if sent < len(self.held):
            self.hold(self.held[sent:])
            return False
        self.held = b""
        self.waiting = False
        return True

    def _pour(self) -> None:
        """Splice, for as long as there is much at once."""
        service = self.connection.service
        pipe = service.pipes.take()
        if pipe is None:
            self.bulk = False
            self.loop.again(self.forward)
            return
        moved = 0
        while moved < BURST_BYTES:
            try:
                got = _splice(self.fd, pipe.write_end, PIPE_BYTES, flags=_SPLICE)
            except BlockingIOError:
                self.readable = False
                break
            except OSError as error:
                service.pipes.give(pipe)
                self.connection.broke(self, error)
                return
            if not got:
                service.pipes.give(pipe)
                self._end()
                return
            pipe.filled = got
            if not self._empty(pipe):
                return
            moved += got
        service.pipes.give(pipe)
        if moved < CHUNK_BYTES:
            self.bulk = False
        if self.readable:
            self.loop.again(self.forward)

    def _empty(self, pipe: Pipe) -> bool:
        """Move what is in the pipe to the other end; when not all goes, keep the pipe and return false."""
        fd = self.other.fd
        while pipe.filled:
            try:
                sent = _splice(pipe.read_end, fd, pipe.filled, flags=_SPLICE)
            except BlockingIOError:
                self.pipe = pipe
                self._wait()
                return False
            except OSError as error:
                self.connection.service.pipes.give(pipe)
                self.connection.broke(self.other, error)
                return False
            pipe.filled -= sent
            self._count(sent)
        return True

    def _end(self) -> None:
        """Pass the end of the stream on; both ways ended, the connection is over."""
        self.ended = True
        self.readable = False
        other = self.other
        if other.ended:
            self.connection.both_ended()
            return
        try:
            other.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.connection.broke(other, error)

    def _is_broken(self) -> bool:
        """Look for an error that no read will bring to light; a hang-up alone is the end of both streams."""
        if not self.ended and (self.other.writable or self is self.connection.backend):
            return False  # what came before the error is read first
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.connection.broke(self, OSError(error, os.strerror(error)))
        return bool(error)


NOBODY: Final = End.nobody()
