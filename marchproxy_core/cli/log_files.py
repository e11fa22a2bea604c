"""Reading log files and following them as they grow. Yields lines; judges nothing.

Following polls: it works on every file system, and survives a file that is renamed, replaced, cut to nothing,
or away for a while.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, BinaryIO

import trio

from marchproxy_core.cli.log_lines import Line, LineSplitter

_BLOCK_BYTES = 1 << 16
POLL_S = 0.25


def read_lines(stream: IO[bytes]) -> Iterator[Line]:
    """Yield each line to the end, as soon as it has come; the caller closes the stream.

    Raises:
        OSError: Reading failed.
    """
    splitter = LineSplitter()
    # read1 returns what there is; read would wait for a whole block of a slow pipe.
    read = stream.read1 if isinstance(stream, io.BufferedIOBase) else stream.read
    while block := read(_BLOCK_BYTES):
        yield from splitter.feed(block)
    yield from splitter.flush()


async def follow_lines(path: Path) -> AsyncGenerator[Line, None]:
    """Yield each line of the file, then each that is added, for ever. A line counts once it has its end.

    Raises:
        OSError: The file cannot be opened at first, or reading fails; that it is gone later is waited for.
    """
    with ExitStack() as opened:
        stream: BinaryIO = opened.enter_context(path.open("rb", buffering=0))
        splitter = LineSplitter()
        while True:
            # Looked at before reading: what was written before a rename is then read to its end below.
            replaced = _is_replaced(stream, path)
            while block := stream.read(_BLOCK_BYTES):
                for line in splitter.feed(block):
                    yield line
                await trio.lowlevel.checkpoint()
            if os.fstat(stream.fileno()).st_size < stream.tell():
                stream.seek(0)
                splitter = LineSplitter()
            elif replaced and (successor := _open_again(path)):
                for line in splitter.flush():
                    yield line
                opened.pop_all().close()
                stream = opened.enter_context(successor)
                splitter = LineSplitter()
            else:
                await trio.sleep(POLL_S)


def _is_replaced(stream: BinaryIO, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    then = os.fstat(stream.fileno())
    return (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino)


def _open_again(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
