"""What a map is: its type, its sizes, its flags. Values only, and how many CPUs a per-CPU value has."""

from __future__ import annotations

import enum
import functools
import re
import struct
from pathlib import Path

import attrs

MAP_INFO_BYTES = 88
_INFO = struct.Struct("=6I16s")
_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")
_NAME = re.compile(r"[A-Za-z0-9_.]{1,15}")
_MOST = 0xFFFF_FFFF


class MapType(enum.IntEnum):
    """``enum bpf_map_type``."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    CPUMAP = 16
    XSKMAP = 17
    QUEUE = 22
    STACK = 23
    DEVMAP_HASH = 25
    RINGBUF = 27


class MapFlags(enum.IntFlag):
    """Flags of BPF_MAP_CREATE."""

    NONE = 0
    NO_PREALLOC = 1 << 0
    """Memory for each entry when it is made; LPM_TRIE must have it."""
    NO_COMMON_LRU = 1 << 1
    """LRU lists of each CPU's own: faster, but a CPU evicts while others have room."""
    NUMA_NODE = 1 << 2
    RDONLY = 1 << 3
    WRONLY = 1 << 4
    RDONLY_PROG = 1 << 7
    WRONLY_PROG = 1 << 8
    MMAPABLE = 1 << 10
    """An array that :meth:`Map.mmap` maps."""
    INNER_MAP = 1 << 12
    """Inner arrays of an ARRAY_OF_MAPS may differ in max_entries (since 5.10)."""


PER_CPU = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})
KEYLESS = frozenset({MapType.QUEUE, MapType.STACK, MapType.RINGBUF})
OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})


@attrs.frozen(kw_only=True)
class MapSpec:
    """A map as it is to be.

    Args:
        name: At most 15 characters of letters, digits, ``_`` and ``.``, as the kernel keeps it.
        type: Its kind.
        key_size: In bytes; 0 for QUEUE, STACK and RINGBUF.
        value_size: In bytes, of one CPU's value; 0 for RINGBUF; 4 for maps of maps, programs and devices.
        max_entries: At least 1; of a RINGBUF its size in bytes, a power of two and of pages.
        flags: What else.
        inner: What the maps inside of a map of maps look like.
    """

    name: str = attrs.field()
    type: MapType
    key_size: int = 4
    value_size: int
    max_entries: int = attrs.field()
    flags: MapFlags = MapFlags.NONE
    inner: MapSpec | None = None

    @name.validator
    def _check_name(self, _: object, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"map {name!r}: need a name of 1 to 15 letters, digits, '_' or '.'")

    @max_entries.validator
    def _check_entries(self, _: object, count: int) -> None:
        if not 1 <= count <= _MOST:
            raise ValueError(f"map {self.name}: need max_entries from 1 to {_MOST}, have {count}")

    def __attrs_post_init__(self) -> None:
        if (self.type in KEYLESS) != (self.key_size == 0):
            raise ValueError(f"map {self.name}: key_size {self.key_size} is wrong for {self.type.name}")
        if (self.type in OF_MAPS) != (self.inner is not None):
            raise ValueError(f"map {self.name}: inner is for maps of maps, and they need it")
        if self.type is MapType.LPM_TRIE and MapFlags.NO_PREALLOC not in self.flags:
            raise ValueError(f"map {self.name}: an LPM_TRIE needs the flag NO_PREALLOC")


@attrs.frozen(kw_only=True)
class MapInfo:
    """A map as the kernel describes it."""

    name: str
    id: int
    type: int
    """A :class:`MapType`, or a number that we do not know."""
    key_size: int
    value_size: int
    max_entries: int
    flags: int

    @classmethod
    def parse(cls, raw: bytes) -> MapInfo:
        """Read the beginning of ``struct bpf_map_info``."""
        kind, number, key_size, value_size, max_entries, flags, name = _INFO.unpack_from(raw)
        return cls(
            name=name.partition(b"\0")[0].decode(errors="replace"),
            id=number,
            type=MapType(kind) if kind in MapType._value2member_map_ else kind,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            flags=flags,
        )

    def differences(self, spec: MapSpec) -> tuple[str, ...]:
        """List how this map is not the one of the spec, as ``max_entries 16, want 32``."""
        wanted: dict[str, int] = {
            "type": spec.type,
            "key_size": spec.key_size,
            "value_size": spec.value_size,
            "max_entries": _entries_made(spec),
            "flags": _flags_made(spec),
        }
        return tuple(
            f"{field} {_shown(have)}, want {_shown(want)}"
            for field, want in wanted.items()
            if (have := getattr(self, field)) != want
        )


def value_stride(size_bytes: int) -> int:
    """How far values stand apart in arrays and in per-CPU values: the size, rounded up to 8 bytes."""
    return -size_bytes % 8 + size_bytes


@functools.cache
def possible_cpus() -> int:
    """How many CPUs a per-CPU value has: those that could ever be plugged in, not those that run."""
    last = _POSSIBLE_CPUS.read_text(encoding="ascii").strip().split(",")[-1].split("-")[-1]
    # The kernel sizes per-CPU values by num_possible_cpus(); the mask has no holes on machines that we know of.
    return int(last) + 1


def _flags_made(spec: MapSpec) -> int:
    # dev_map_init_map() adds it on its own (kernel/bpf/devmap.c, since 4.18).
    added = MapFlags.RDONLY_PROG if spec.type in (MapType.DEVMAP, MapType.DEVMAP_HASH) else MapFlags.NONE
    return int(spec.flags | added)


def _entries_made(spec: MapSpec) -> int:
    if MapFlags.NO_COMMON_LRU in spec.flags:
        # htab_map_alloc() gives each CPU an equal share (kernel/bpf/hashtab.c).
        return -spec.max_entries % possible_cpus() + spec.max_entries
    return spec.max_entries


def _shown(value: int) -> str:
    return value.name if isinstance(value, MapType) else str(value)
