"""The engine's tables in the kernel: made or found pinned, filled at first, closed. Blocks.

They outlive the daemon where they are pinned: flows go on while it is away, and it finds them again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

from marchproxy_core.bpf import Map, MapFlags, MapSpec, MapType, value_stride
from marchproxy_core.packet import layout

if TYPE_CHECKING:
    from mmap import mmap

    from marchproxy_core.bpf import PinDirectory
    from marchproxy_core.config import Settings

SCHEMA = layout.enumeration("mp_version")["SCHEMA"]
"""Version of all layouts; tables of another one are never opened."""
PICKS_IN_ENTRY = 4
MOST_SOURCES = 4
"""Source addresses of one backend: as many as the engine tries, MP_TRIES over MP_TRIES_A_SOURCE."""
HINTS_A_FLOW = 16
"""Two of its keys want one each: a full table has an eighth of them in each other's way. Bytes: 4 each."""
_HINTS_IN_ENTRY = 16
_SAMPLES = 64
"""Dropped packets that are kept as examples until somebody looks."""
_NUMBERS = layout.enumeration("mp_table")
_WORD = struct.Struct("<I")


def word(number: int) -> bytes:
    """Return a place in an array as the engine's keys have it."""
    return _WORD.pack(number)


def table_specs(settings: Settings) -> tuple[MapSpec, ...]:
    """Say what the tables look like, by their numbers in ``enum mp_table``.

    ``EBPF_SERVICE_MAP_SIZE`` is for services, whose numbers begin with 1; ``EBPF_STATS_MAP_SIZE`` may ask for more
    places for their counters, and fewer would be none for some.
    """
    flows = settings.ebpf_conn_map_size
    services = settings.ebpf_service_map_size + 1
    counted = max(settings.ebpf_stats_map_size + 1, services)
    several = min(settings.ebpf_maps_size, 1 << 16)  # a pick is 16 bits wide
    array = MapType.ARRAY
    specs = {
        "KEYS": _spec("keys", MapType.HASH, layout.FLOW_KEY.size, layout.FLOW_REF.size, 2 * flows),
        "FLOWS": _spec("flows", array, 4, layout.FLOW.size, flows, MapFlags.MMAPABLE),
        "FREE": _spec("free", MapType.QUEUE, 0, 4, flows),
        "SERVICES": _spec(
            "services", MapType.HASH, layout.SERVICE_KEY.size, layout.SERVICE.size, 16 * services
        ),
        "PICKS": MapSpec(
            name="picks",
            type=MapType.ARRAY_OF_MAPS,
            value_size=4,
            max_entries=2 * services,
            inner=picks_spec(1),
        ),
        "BACKENDS": _spec("backends", array, 4, layout.BACKEND.size, several),
        "SOURCES": _spec("sources", array, 4, layout.ADDRESS.size, MOST_SOURCES * several),
        "LOADS": _spec("loads", array, 4, layout.LOAD.size, services, MapFlags.MMAPABLE),
        "COUNTERS": _spec("counters", MapType.PERCPU_ARRAY, 4, layout.COUNTERS.size, 2 * counted),
        "SETTINGS": _spec("settings", array, 4, layout.SETTINGS.size, 1),
        "PREFIXES": _spec(
            "prefixes",
            MapType.LPM_TRIE,
            layout.PREFIX_KEY.size,
            layout.PREFIX.size,
            settings.ebpf_maps_size,
            MapFlags.NO_PREALLOC,
        ),
        "PACES": _spec(
            "paces", MapType.LRU_HASH, layout.ADDRESS.size, layout.PACE.size, settings.ebpf_maps_size
        ),
        "HINTS": _spec("hints", array, 4, layout.HINTS.size, -(-flows * HINTS_A_FLOW // _HINTS_IN_ENTRY)),
        "SAMPLES": _spec("samples", MapType.QUEUE, 0, layout.SAMPLE.size, _SAMPLES),
    }
    return tuple(specs[name] for name in sorted(specs, key=lambda name: _NUMBERS[name]))


def picks_spec(slots: int) -> MapSpec:
    """Say what one service's table of picks looks like: four slots in an entry."""
    return MapSpec(
        name="picks_of_one",
        type=MapType.ARRAY,
        value_size=layout.PICKS.size,
        max_entries=-(-slots // PICKS_IN_ENTRY),
        flags=MapFlags.INNER_MAP,
    )


def _spec(
    name: str, kind: MapType, key: int, value: int, entries: int, flags: MapFlags = MapFlags.NONE
) -> MapSpec:
    return MapSpec(name=name, type=kind, key_size=key, value_size=value, max_entries=entries, flags=flags)


@final
class Tables:
    """The open tables; close them, and what is pinned stays."""

    def __init__(self, maps: tuple[Map, ...]) -> None:
        """Use :meth:`open`."""
        self.maps = maps
        """All of them, by number: what a program is loaded with."""
        by_name: Mapping[str, Map] = {one.name: one for one in maps}
        self.keys, self.flows, self.free = by_name["keys"], by_name["flows"], by_name["free"]
        self.services, self.picks = by_name["services"], by_name["picks"]
        self.backends, self.sources = by_name["backends"], by_name["sources"]
        self.loads, self.counters, self.settings = by_name["loads"], by_name["counters"], by_name["settings"]
        self.prefixes, self.paces, self.samples = by_name["prefixes"], by_name["paces"], by_name["samples"]
        self.hints = by_name["hints"]
        self.flow_memory: mmap = self.flows.mmap()
        self.load_memory: mmap = self.loads.mmap()

    @classmethod
    def open(cls, settings: Settings, pins: PinDirectory | None = None) -> Tables:
        """Open the tables, pinned if a directory is given, and fill those that are new.

        Raises:
            PinMismatch: A pinned one has another size; the settings changed while it was kept.
            BpfError: One could not be made.
        """
        maps: list[Map] = []
        try:
            for spec in table_specs(settings):
                maps.append(pins.open_or_create(spec) if pins else Map.create(spec))  # noqa: PERF401 - closed on failure
            tables = cls(tuple(maps))
        except BaseException:
            for one in maps:
                one.close()
            raise
        tables._fill()
        return tables

    def close(self) -> None:
        """Close all; programs that are loaded keep what they use."""
        self.flow_memory.close()
        self.load_memory.close()
        for one in self.maps:
            one.close()

    def _fill(self) -> None:
        """Put every place for a flow among the free ones. The seed is written last and says that this was done."""
        (seed,) = struct.unpack_from("<I", self._settings(), layout.SETTINGS.offset("seed"))
        if seed:
            return
        while self.free.pop() is not None:  # of one who was stopped half-way; no program has run on it
            pass
        for place in range(self.flows.max_entries):
            self.free.push(word(place))
        self.settings.update(
            word(0),
            layout.SETTINGS.pack(
                seed=int.from_bytes(os.urandom(4)) | 1,
                error_interval=10_000_000,
                sample_interval=100_000_000,
                hints=self.hints.max_entries * _HINTS_IN_ENTRY,
            ),
        )

    def _settings(self) -> bytes:
        found = self.settings.lookup(word(0))
        assert found is not None  # an array has every place
        return found

    def change_settings(self, **fields: int) -> None:
        """Write some fields of ``struct mp_settings``; the others stay."""
        known = layout.SETTINGS.unpack(self._settings())
        self.settings.update(word(0), layout.SETTINGS.pack(**{**known, **fields}))


def flow_stride() -> int:
    """Return the distance of two flows in memory, in bytes."""
    return value_stride(layout.FLOW.size)
