"""What all BPF objects have in common: a descriptor that closes, an id, a description, and perhaps a pin."""

from __future__ import annotations

import errno
import os
import struct
import warnings
from typing import TYPE_CHECKING

from marchproxy_core.bpf.syscall import BpfError, Command, address, bpf, buffer

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_OBJECT = struct.Struct("=QII")  # pathname, bpf_fd, file_flags
_INFO = struct.Struct("=IIQ")  # bpf_fd, info_len, info
_ID = struct.Struct("=III")  # id, next_id, open_flags


class Descriptor:
    """Owner of one descriptor of a kernel object. Close it, or use it as a context manager."""

    def __init__(self, fd: int) -> None:
        """Take the descriptor over."""
        self._fd = fd

    @property
    def fd(self) -> int:
        """The open descriptor; stays the owner's.

        Raises:
            ValueError: It was closed.
        """
        if self._fd < 0:
            raise ValueError(f"{type(self).__name__} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Give the descriptor back; a second time is fine. What is pinned or attached otherwise lives on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the object a name in a bpffs, which keeps it alive.

        Args:
            path: Of a file that does not exist, in a mounted bpffs; no dot in its name.

        Raises:
            BpfError: EEXIST, or EPERM, or EINVAL where there is no bpffs.
        """
        name = buffer(os.fsencode(path) + b"\0")
        bpf(Command.OBJ_PIN, _OBJECT.pack(address(name), self.fd, 0), f"pin {os.fspath(path)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(
                f"unclosed {type(self).__name__}, descriptor {self._fd}", ResourceWarning, 2, source=self
            )
            self.close()


def open_pinned(path: str | os.PathLike[str]) -> int:
    """Open what is pinned there; the caller closes the descriptor.

    Raises:
        BpfError: ENOENT when nothing is.
    """
    name = buffer(os.fsencode(path) + b"\0")
    return bpf(Command.OBJ_GET, _OBJECT.pack(address(name), 0, 0), f"open {os.fspath(path)}")[0]


def open_by_id(command: Command, number: int, what: str) -> int:
    """Open the object that has this id; the caller closes the descriptor.

    Raises:
        BpfError: ENOENT when it is gone.
    """
    return bpf(command, _ID.pack(number, 0, 0), f"{what} with id {number}")[0]


def next_id(command: Command, number: int) -> int | None:
    """Return the lowest id above ``number``, None when there is none."""
    try:
        _, left = bpf(command, _ID.pack(number, 0, 0), f"objects after id {number}")
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return int(_ID.unpack(left.raw)[1])


def read_info(fd: int, size_bytes: int, what: str) -> bytes:
    """Return what the kernel says of an object: ``struct bpf_*_info``, filled with zeros where it is older."""
    info = buffer(size_bytes)
    bpf(Command.OBJ_GET_INFO_BY_FD, _INFO.pack(fd, size_bytes, address(info)), what)
    return info.raw
