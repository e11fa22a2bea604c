"""Bodies from socket to socket through a pipe, without coming into this process (splice(2))."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from marchproxy_application.streams import Stream
    from marchproxy_core.relay.tcp.pipes import Pipes

LEAST_BYTES: Final = 1 << 16
"""Less is cheaper to read and write."""
_MOST_BYTES: Final = 1 << 20
# SPLICE_F_MORE is left out: the last bytes of an answer must not wait for more.
_FLAGS: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


def pour(source: Stream, sink: Stream, pipes: Pipes, most: int) -> int:
    """Move what is there, as far as the sink takes it; what it does not take waits in it as if written.

    Args:
        source: Where from; neither end may be TLS.
        sink: Where to; nothing waits in it.
        pipes: The worker's.
        most: How much may be moved, 1 byte or more.

    Returns:
        How much has left the source: 0 if there is nothing for now, -1 at its end; 0 too after one of the two failed,
        which was told by its ``on_broken``.
    """
    pipe = pipes.take()
    if pipe is None:
        return _copy(source, sink, most)
    try:
        got = os.splice(source.fd, pipe.write_end, min(most, _MOST_BYTES), flags=_FLAGS)
    except BlockingIOError:
        source.readable = False
        pipes.give(pipe)
        return 0
    except OSError as error:
        pipes.give(pipe)
        source.readable = False
        source.on_broken(error)
        return 0
    pipe.filled = got
    while pipe.filled:
        try:
            pipe.filled -= os.splice(pipe.read_end, sink.fd, pipe.filled, flags=_FLAGS)
        except BlockingIOError:
            rest = os.read(pipe.read_end, pipe.filled)
            pipe.filled -= len(rest)
            sink.writable = False
            sink.write(rest)
        except OSError as error:
            pipes.give(pipe)
            sink.on_write_broken(error)
            return 0 if source.closed else got
    pipes.give(pipe)
    return got or -1


def _copy(source: Stream, sink: Stream, most: int) -> int:
    data = source.read_at_most(most)
    if data is None:
        return 0
    if data:
        sink.write(data)
    return len(data) or -1
