"""The front door in the engine's tables: prefixes, and what else is asked of packets. Blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Set
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, final

from marchproxy_core.bpf import items
from marchproxy_core.door import Door
from marchproxy_core.packet import layout
from marchproxy_core.packet.counting import NO_SERVICE
from marchproxy_core.packet.numbers import NoPlace

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.door import Prefix, Rule
    from marchproxy_core.packet.tables import Tables

_SECOND_NS = 1_000_000_000
_BITS = layout.enumeration("mp_doors")
_DOORS = {door: layout.PREFIX.pack(door=layout.enumeration("mp_door")[door.name]) for door in Door}
_NEUTRAL = layout.PREFIX.pack(door=0)
_KEY = struct.Struct("<II16s")
assert _KEY.size == layout.PREFIX_KEY.size
_SERVICE_BITS = 32
_IPV4_BITS = 96
_IPV4 = IPv6Network("::ffff:0:0/96")
"""All of IPv4, as the engine has it."""


@final
class DoorTable:
    """The one writer of PREFIXES, and of what the settings say of the door."""

    def __init__(self, tables: Tables) -> None:
        """Take over what the tables have from before; they stay open for as long as this is used."""
        self._tables = tables
        self._written: dict[bytes, bytes] = dict(items(tables.prefixes))
        self._followed: tuple[tuple[Rule, ...], Mapping[str, int], Set[int]] | None = None
        self._fields: Mapping[str, int] = {}

    def follow(
        self, rules: tuple[Rule, ...], numbers: Mapping[str, int], spare: Set[int], settings: Settings
    ) -> None:
        """Have the tables hold these rules, and the settings that are about the door.

        Args:
            rules: Those in force.
            numbers: Of the services that are carried, by name; rules of others are left out.
            spare: Numbers of services of which nobody has said yet what becomes of them: theirs stay as they are.
            settings: Those in force.

        Raises:
            NoPlace: There are too many rules.
            BpfError: The kernel refuses a change.
        """
        before = self._followed
        if before is None or before[0] is not rules or before[1:] != (numbers, spare):
            spared = {key: value for key, value in self._written.items() if _number(key) in spare}
            self._write({**spared, **prefix_entries(rules, numbers)})
            self._followed = rules, numbers, spare
        fields = door_fields(settings, {bool(_number(key)) for key in self._written})
        if fields != self._fields:
            self._tables.change_settings(**fields)
            self._fields = fields

    def _write(self, wanted: Mapping[bytes, bytes]) -> None:
        """Write the difference: a client that is let in before and after is let in all the time."""
        table = self._tables.prefixes
        if len(wanted) > table.max_entries:
            raise NoPlace(
                f"{len(wanted)} prefixes at the front door, and {table.max_entries} places - fix: raise EBPF_MAPS_SIZE"
            )
        blocks_first = sorted(self._written.items(), key=lambda entry: entry[1] != _DOORS[Door.BLOCK])
        for key, value in blocks_first:
            if key not in wanted:
                table.delete(key)
                del self._written[key]
            elif value == _DOORS[Door.BLOCK] != wanted[key]:
                self._put(key, wanted[key])
        for key, value in sorted(wanted.items(), key=lambda entry: entry[1] == _DOORS[Door.BLOCK]):
            if self._written.get(key) != value:
                self._put(key, value)

    def _put(self, key: bytes, value: bytes) -> None:
        self._tables.prefixes.update(key, value)
        self._written[key] = value


def prefix_entries(rules: Iterable[Rule], numbers: Mapping[str, int]) -> dict[bytes, bytes]:
    """Return what PREFIXES holds for these rules, with the numbers of services by their names.

    A short prefix of IPv6 would have all of IPv4 in it too, which is a part of it here: that gets an entry that says
    nothing, where no rule has one.
    """
    known = {"": NO_SERVICE, **numbers}
    entries: dict[bytes, bytes] = {}
    for rule in rules:
        number = known.get(rule.service)
        if number is None:
            continue
        entries[prefix_key(rule.prefix, number)] = _DOORS[rule.door]
        if isinstance(rule.prefix, IPv6Network) and _IPV4.subnet_of(rule.prefix):
            entries.setdefault(prefix_key(_IPV4, number), _NEUTRAL)
    return entries


def prefix_key(prefix: Prefix, number: int) -> bytes:
    """Return a prefix as the engine's keys have it, for the service of this number; 0: for all."""
    bits = _SERVICE_BITS + prefix.prefixlen + (_IPV4_BITS if prefix.version == 4 else 0)
    return _KEY.pack(bits, number, layout.address_bytes(prefix.network_address))


def _number(key: bytes) -> int:
    return int.from_bytes(key[4:8], "little")


def door_fields(settings: Settings, scopes: Set[bool]) -> dict[str, int]:
    """Return the fields of ``struct mp_settings`` that are about the door.

    Args:
        settings: Those in force.
        scopes: Which prefixes there are: False: of all services; True: of single ones.
    """
    bits = _BITS["HAS_PREFIXES"] if False in scopes else 0
    bits |= _BITS["HAS_SERVICE_PREFIXES"] if True in scopes else 0
    rate = settings.door_source_rate
    interval = max(int(_SECOND_NS / rate), 1) if rate else 0
    burst = settings.door_source_burst or max(int(rate or 0), 1)
    return {
        "pace_interval": interval,
        "pace_burst": (burst - 1) * interval,
        "max_opening": settings.door_max_opening or 0,
        "doors": bits | (_BITS["DROP_MALFORMED"] if settings.door_drop_malformed else 0),
    }
