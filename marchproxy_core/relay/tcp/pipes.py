"""Pipes to splice through: taken for a burst, kept only while bytes are stuck in them.

So an idle connection has none, and a worker's number of pipes is that of its blocked bulk transfers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import final

import attrs

PIPE_BYTES = 1 << 20
"""Wanted capacity; without CAP_SYS_RESOURCE the kernel may refuse more than 64 KiB (pipe(7), pipe-user-pages-soft)."""
_MOST_SPARE = 8


@final
@attrs.define(eq=False)
class Pipe:
    """A pipe, non-blocking at both ends."""

    read_end: int
    write_end: int
    filled: int = 0
    """Bytes in it."""

    def close(self) -> None:
        """Close both ends; what is in it is lost."""
        os.close(self.read_end)
        os.close(self.write_end)


@final
@attrs.define(eq=False)
class Pipes:
    """A worker's pipes."""

    _spare: list[Pipe] = attrs.field(factory=list, init=False)

    def take(self) -> Pipe | None:
        """Return an empty pipe, which the caller gives back or closes; None when there are no descriptors left."""
        if self._spare:
            return self._spare.pop()
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return None
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take a pipe back; one that is not empty is of no more use."""
        if pipe.filled or len(self._spare) >= _MOST_SPARE:
            pipe.close()
        else:
            self._spare.append(pipe)

    def close(self) -> None:
        """Close the spare ones."""
        while self._spare:
            self._spare.pop().close()
