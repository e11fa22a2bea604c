"""What outlives the daemon: maps, programs and links that are pinned in a directory of a bpffs.

One directory for each version of what is in there, and one daemon at a time: the lock is gone with the process
that has it, however it ends. Tiers of the same process share it. Blocks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, final

from marchproxy_core.bpf.bpffs import BPFFS, ensure_bpffs
from marchproxy_core.bpf.maps import Map
from marchproxy_core.bpf.syscall import BpfError
from marchproxy_core.errors import MarchProxyError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from marchproxy_core.bpf.map_types import MapSpec
    from marchproxy_core.bpf.objects import Descriptor

_FOLDER = "marchproxy"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # bpffs keeps names with dots for itself
_LOCKS = Path("/proc/locks")


class PinError(MarchProxyError):
    """What is pinned cannot be used: it belongs to somebody else, or is in use."""


class PinMismatch(PinError):
    """A pinned map is not what it should be. ``differences`` says how."""

    def __init__(self, path: Path, differences: tuple[str, ...]) -> None:
        """Name the pin and how it differs."""
        super().__init__(
            f"pinned map {path}: {'; '.join(differences)} - fix: rm {path}, which forgets what is in it, "
            "or put the settings back"
        )
        self.path = path
        self.differences = differences


def pin_folder(root: Path = BPFFS) -> Path:
    """Return where all directories of pins are; it may be missing, and is root's."""
    return root / _FOLDER


class _Lock:
    """The lock of one directory, held once by this process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 1


_locks: dict[Path, _Lock] = {}
_guard = threading.Lock()


@final
class PinDirectory:
    """An open directory of pins. Closing it gives the lock back and leaves the pins; an empty one is removed."""

    def __init__(self, path: Path) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._open = True

    @classmethod
    def open(cls, schema: str, root: Path = BPFFS) -> PinDirectory:
        """Take the directory ``ROOT/marchproxy/SCHEMA``; made, and the bpffs mounted, where they are not there.

        Args:
            schema: Version of what is pinned in it: letters, digits, ``_`` and ``-``.
            root: Where the bpffs is, or is to be.

        Raises:
            PinError: Another process has it; the message says which. Or the directory is not ours.
            OSError: No right to make it, or no bpffs.
        """
        path = pin_folder(root) / _checked(schema)
        with _guard:
            if path in _locks:
                _locks[path].users += 1
                return cls(path)
            ensure_bpffs(root)
            os.close(_own_directory(path.parent))
            fd = _locked_directory(path)
            _locks[path] = _Lock(fd)
        return cls(path)

    def open_or_create(self, spec: MapSpec) -> Map:
        """Open the map pinned under the spec's name, or make and pin one; the caller closes it.

        What is inside of a map of maps is not compared: the kernel does not tell.

        Raises:
            PinMismatch: Its type, sizes or flags are others.
            BpfError: No map could be made.
        """
        path = self.file(spec.name)
        with _guard:  # another tier of this process may ask for the same map at the same time
            try:
                found = Map.open_pinned(path)
            except BpfError as error:
                if error.errno != errno.ENOENT:
                    raise
                return _create_pinned(spec, path)
        differences = found.info().differences(spec)
        if differences:
            found.close()
            raise PinMismatch(path, differences)
        return found

    def pin(self, thing: Descriptor, name: str) -> None:
        """Pin a map, a program or a link; replaces what had the name, which is there at any moment.

        Raises:
            BpfError: No right.
        """
        path = self.file(name)
        beside = path.with_name(f"new-{name}")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        thing.pin(beside)
        beside.replace(path)

    def unpin(self, name: str) -> bool:
        """Remove a pin, and say whether there was one; what nobody else holds is gone then."""
        try:
            self.file(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def unpin_all(self) -> tuple[str, ...]:
        """Remove all pins, and return their names. Programs keep the maps that they use for as long as they run."""
        return tuple(name for name in self.names() if self.unpin(name))

    def names(self) -> tuple[str, ...]:
        """Return the names of what is pinned."""
        return tuple(sorted(os.listdir(self.path)))

    def file(self, name: str) -> Path:
        """Return where a pin of that name is, for ``open_pinned`` of maps, programs and links.

        Raises:
            ValueError: A name that bpffs does not take, or the directory is closed.
        """
        if not self._open:
            raise ValueError(f"{self.path} is closed")
        return self.path / _checked(name)

    def close(self) -> None:
        """Let go of the directory; the pins stay, and without any it is removed. A second time is fine."""
        with _guard:
            if not self._open:
                return
            self._open = False
            lock = _locks[self.path]
            lock.users -= 1
            if lock.users == 0:
                del _locks[self.path]
                with contextlib.suppress(OSError):  # there are pins, or somebody has removed it
                    self.path.rmdir()
                os.close(lock.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _create_pinned(spec: MapSpec, path: Path) -> Map:
    made = Map.create(spec)
    try:
        made.pin(path)
    except BaseException:
        made.close()
        raise
    return made


def _own_directory(path: Path) -> int:
    """Open a directory that is ours alone, made if need be. Anybody may make one in a bpffs that systemd mounted."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        os.close(fd)
        raise PinError(
            f"{path}: need a directory of user {os.geteuid()}, have one of user {found.st_uid} - fix: rm -r it"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.fchmod(fd, 0o700)
    return fd


def _locked_directory(path: Path) -> int:
    """Open and lock a directory; once more if who had it removes it in between."""
    while True:
        fd = _own_directory(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            raise PinError(f"{path}: another daemon has it{holder} - fix: stop that one first") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(fd)):
                return fd
        os.close(fd)


def _holder(fd: int) -> str:
    """Say who has the lock, as `` (marchproxy, pid 812)``; empty when it cannot be seen."""
    found = os.fstat(fd)
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        for line in _LOCKS.read_text(encoding="ascii").splitlines():
            fields = line.split()
            if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == wanted:
                command = Path(f"/proc/{fields[4]}/comm").read_text(encoding="utf-8", errors="replace")
                return f" ({command.strip()}, pid {fields[4]})"
    except OSError:
        pass
    return ""


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"pin {name!r}: need a name of 1 to 64 letters, digits, '_' or '-'")
    return name
