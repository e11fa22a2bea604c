"""A map of the kernel: made, read, written, mapped into memory. Owns its descriptor.

Keys and values are bytes as the C side lays them out; the callers pack them. Every call may block, and most
take some microseconds.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from mmap import PAGESIZE
from mmap import mmap as Memory
from typing import TYPE_CHECKING, final

from marchproxy_core.bpf.map_types import (
    MAP_INFO_BYTES,
    PER_CPU,
    MapFlags,
    MapInfo,
    MapSpec,
    possible_cpus,
    value_stride,
)
from marchproxy_core.bpf.objects import Descriptor, open_by_id, open_pinned, read_info
from marchproxy_core.bpf.syscall import BpfError, Buffer, Command, address, bpf, buffer

if TYPE_CHECKING:
    import os

ANY = 0
"""Make the entry or replace it."""
NOEXIST = 1
"""Make it; EEXIST when it is there."""
EXIST = 2
"""Replace it; ENOENT when it is not there."""

_CREATE = struct.Struct("=7I16s")
_ELEMENT = struct.Struct("=I4xQQQ")


@final
class Map(Descriptor):
    """A map. Closing it leaves pinned maps, and those that loaded programs use, alive."""

    def __init__(self, fd: int) -> None:
        """Take a map's descriptor over and ask the kernel what it is.

        Raises:
            BpfError: It is no map's; the descriptor is closed.
        """
        super().__init__(fd)
        try:
            self._info = MapInfo.parse(read_info(fd, MAP_INFO_BYTES, "map"))
        except BpfError:
            self.close()
            raise
        self.name = self._info.name
        self.type = self._info.type
        self.key_size = self._info.key_size
        per_cpu = value_stride(self._info.value_size) * possible_cpus()
        self.value_size = per_cpu if self.type in PER_CPU else self._info.value_size
        """Of what :meth:`lookup` returns, in bytes: with all CPUs for a per-CPU map."""
        self.max_entries = self._info.max_entries

    @classmethod
    def create(cls, spec: MapSpec) -> Map:
        """Make an empty map; arrays are full of zeros.

        Raises:
            BpfError: E2BIG and ENOMEM when it is too large, EINVAL when the sizes or flags do not suit the type.
        """
        if spec.inner is None:
            return cls(_create(spec, 0))
        with cls.create(spec.inner) as pattern:
            return cls(_create(spec, pattern.fd))

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Map:
        """Open a map that is pinned.

        Raises:
            BpfError: ENOENT when nothing is there.
        """
        return cls(open_pinned(path))

    @classmethod
    def open_id(cls, number: int) -> Map:
        """Open the map with this id, as a program's info or an array of maps names it.

        Raises:
            BpfError: ENOENT when it is gone.
        """
        return cls(open_by_id(Command.MAP_GET_FD_BY_ID, number, "map"))

    def info(self) -> MapInfo:
        """Return what the kernel says of it."""
        return self._info

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value, None when there is none. From a map of maps comes the inner map's id, as u32."""
        value = buffer(self.value_size)
        try:
            self._element(Command.MAP_LOOKUP_ELEM, self._key(key), value)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Write one entry.

        Args:
            key: ``key_size`` bytes.
            value: ``value_size`` bytes; for maps of maps, of programs and of sockets the descriptor as u32.
            flags: ANY, NOEXIST or EXIST.

        Raises:
            BpfError: EEXIST, ENOENT (see the flags); E2BIG when it is full, or the key is outside of an array.
        """
        self._element(Command.MAP_UPDATE_ELEM, self._key(key), self._value(value), flags)

    def delete(self, key: bytes) -> bool:
        """Delete one entry, and say whether there was one.

        Raises:
            BpfError: EINVAL: arrays cannot.
        """
        try:
            self._element(Command.MAP_DELETE_ELEM, self._key(key), None)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def push(self, value: bytes) -> None:
        """Add to a QUEUE or a STACK.

        Raises:
            BpfError: E2BIG when it is full.
        """
        self._element(Command.MAP_UPDATE_ELEM, None, self._value(value))

    def pop(self) -> bytes | None:
        """Take the oldest of a QUEUE, the newest of a STACK; None when it is empty."""
        value = buffer(self.value_size)
        try:
            self._element(Command.MAP_LOOKUP_AND_DELETE_ELEM, None, value)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def keys(self) -> Iterator[bytes]:
        """Yield the keys one by one; the one just yielded may be deleted.

        When others change a hash meanwhile, keys may come twice or not at all, but never more than
        ``max_entries`` of them.
        """
        # The next key is asked for before this one is handed out: asked for the successor of a key that is gone,
        # a hash begins again from its first one.
        coming = self._key_after(None)
        for _ in range(self.max_entries):
            if coming is None:
                return
            key, coming = coming, self._key_after(coming)
            yield key

    def mmap(self) -> Memory:
        """Map an array with the flag MMAPABLE into memory, to read and write; the caller closes it.

        Value n begins at n times ``value_stride(value_size)``; the length is rounded up to whole pages.

        Raises:
            ValueError: The map has not the flag.
        """
        if not self._info.flags & MapFlags.MMAPABLE:
            raise ValueError(
                f"map {self.name}: need the flag MMAPABLE to map it, have flags {self._info.flags}"
            )
        size = value_stride(self._info.value_size) * self.max_entries
        return Memory(self.fd, -size % PAGESIZE + size)

    def split(self, value: bytes) -> tuple[bytes, ...]:
        """Cut a per-CPU value into one value for each possible CPU."""
        size = self._info.value_size
        return tuple(value[at : at + size] for at in range(0, len(value), value_stride(size)))

    def join(self, values: Sequence[bytes]) -> bytes:
        """Make a per-CPU value of one for each possible CPU."""
        return b"".join(value.ljust(value_stride(self._info.value_size), b"\0") for value in values)

    def _key_after(self, key: bytes | None) -> bytes | None:
        following = buffer(self.key_size)
        try:
            self._element(Command.MAP_GET_NEXT_KEY, self._key(key) if key is not None else None, following)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return following.raw

    def _key(self, key: bytes) -> Buffer:
        return self._sized("key", key, self.key_size)

    def _value(self, value: bytes) -> Buffer:
        return self._sized("value", value, self.value_size)

    def _sized(self, what: str, content: bytes, size: int) -> Buffer:
        # The kernel reads as many bytes as it wants, whatever we have.
        if len(content) != size:
            raise ValueError(f"map {self.name}: need a {what} of {size} bytes, have {len(content)}")
        return buffer(content)

    def _element(self, command: Command, key: Buffer | None, value: Buffer | None, flags: int = 0) -> None:
        attributes = _ELEMENT.pack(self.fd, address(key), address(value), flags)
        bpf(command, attributes, f"map {self.name}")


def _create(spec: MapSpec, inner_fd: int) -> int:
    attributes = _CREATE.pack(
        spec.type,
        spec.key_size,
        spec.value_size,
        spec.max_entries,
        spec.flags,
        inner_fd,
        0,
        spec.name.encode(),
    )
    return bpf(Command.MAP_CREATE, attributes, f"map {spec.name} ({spec.type.name})")[0]
