"""Many entries of a map at once: BPF_MAP_*_BATCH, or one by one for the types that have no batches.

Kernels before 5.6 have no batches at all, and for some types none has. Every call may block.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.bpf.syscall import ENOTSUPP, BpfError, Buffer, Command, address, buffer, call

if TYPE_CHECKING:
    from marchproxy_core.bpf.maps import Map

_BATCH = struct.Struct("=4Q2I2Q")  # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags
_COUNT = struct.Struct("=32xI")
_CHUNK = 4096
_NO_BATCHES = (ENOTSUPP, errno.EINVAL)


@attrs.frozen
class Batch:
    """Some entries, packed: key n begins at n times the key's size, value n at n times ``value_size``."""

    count: int
    keys: bytes = attrs.field(repr=False)
    values: bytes = attrs.field(repr=False)


def read_batches(source: Map, chunk: int = _CHUNK) -> Iterator[Batch]:
    """Yield all entries in packed batches, for ``struct.iter_unpack``; those made meanwhile may be missing.

    Args:
        source: Any map with keys; it may be written meanwhile.
        chunk: Entries per system call, where the map is not smaller. More are asked for where more of them share
            one bucket of a hash, and then stay.
    """
    size = min(chunk, source.max_entries)
    token: Buffer | None = None
    while True:
        # A hash goes on from the number of a bucket, an array and a trie from a key (kernel/bpf/syscall.c).
        following = buffer(max(source.key_size, 4))
        keys, values = buffer(size * source.key_size), buffer(size * source.value_size)
        attributes = buffer(
            _BATCH.pack(
                address(token), address(following), address(keys), address(values), size, source.fd, 0, 0
            )
        )
        error = _refused(Command.MAP_LOOKUP_BATCH, attributes, source)
        if error is not None and error.errno == errno.ENOSPC:
            size *= 2
            continue
        if error is not None and error.errno in _NO_BATCHES and token is None:
            yield from _read_singly(source)
            return
        if error is not None and error.errno != errno.ENOENT:
            raise error
        if count := _count(attributes):
            yield Batch(
                count,
                ctypes.string_at(keys, count * source.key_size),
                ctypes.string_at(values, count * source.value_size),
            )
        if error is not None:  # ENOENT: that was the end
            return
        token = following


def items(source: Map, chunk: int = _CHUNK) -> Iterator[tuple[bytes, bytes]]:
    """Yield all entries, keys and values; as :func:`read_batches`."""
    key_size, value_size = source.key_size, source.value_size
    for batch in read_batches(source, chunk):
        for n in range(batch.count):
            yield (
                batch.keys[n * key_size : (n + 1) * key_size],
                batch.values[n * value_size : (n + 1) * value_size],
            )


def update_many(target: Map, entries: Sequence[tuple[bytes, bytes]], chunk: int = _CHUNK) -> None:
    """Make or replace entries, in their order.

    Raises:
        BpfError: As :meth:`Map.update`; those before the one that failed are written.
        ValueError: A key or a value of the wrong size.
    """
    _check_sizes(target, [key for key, _ in entries], [value for _, value in entries])
    for begin in range(0, len(entries), chunk):
        part = entries[begin : begin + chunk]
        keys = b"".join(key for key, _ in part)
        values = b"".join(value for _, value in part)
        _, error = _write(Command.MAP_UPDATE_BATCH, target, len(part), keys, values)
        if error is not None and error.errno in _NO_BATCHES:
            for key, value in part:
                target.update(key, value)
        elif error is not None:
            raise error


def delete_many(target: Map, keys: Sequence[bytes], chunk: int = _CHUNK) -> int:
    """Delete entries, and return how many there were; keys that are not there are left out.

    Raises:
        BpfError: EINVAL: arrays cannot.
        ValueError: A key of the wrong size.
    """
    _check_sizes(target, keys, ())
    deleted = at = 0
    while at < len(keys):
        part = keys[at : at + chunk]
        done, error = _write(Command.MAP_DELETE_BATCH, target, len(part), b"".join(part), b"")
        if error is not None and error.errno in _NO_BATCHES:
            return deleted + sum(target.delete(key) for key in keys[at:])
        if error is not None and error.errno != errno.ENOENT:
            raise error
        deleted += done
        at += done + (error is not None)
    return deleted


def _read_singly(source: Map) -> Iterator[Batch]:
    for key in source.keys():  # noqa: SIM118 - a map is no dict
        value = source.lookup(key)
        if value is not None:
            yield Batch(1, key, value)


def _write(
    command: Command, target: Map, count: int, keys: bytes, values: bytes
) -> tuple[int, BpfError | None]:
    keys_memory, values_memory = buffer(keys), buffer(values)
    addresses = address(keys_memory), address(values_memory)
    attributes = buffer(_BATCH.pack(0, 0, *addresses, count, target.fd, 0, 0))
    error = _refused(command, attributes, target)
    return _count(attributes), error


def _count(attributes: Buffer) -> int:
    return int(_COUNT.unpack_from(attributes.raw)[0])


def _refused(command: Command, attributes: Buffer, target: Map) -> BpfError | None:
    try:
        call(command, attributes, f"map {target.name}")
    except BpfError as error:
        return error
    return None


def _check_sizes(target: Map, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    for what, contents, size in (("key", keys, target.key_size), ("value", values, target.value_size)):
        wrong = next((len(content) for content in contents if len(content) != size), None)
        if wrong is not None:
            raise ValueError(f"map {target.name}: need a {what} of {size} bytes, have {wrong}")
