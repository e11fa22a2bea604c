"""Writes which addresses lead to which service: the engine's SERVICES, and the backends and slots that they point to.

Blocks. Whatever an entry points to is there before the entry, and goes after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from marchproxy_core.bpf import items
from marchproxy_core.packet import layout
from marchproxy_core.packet.backends import BackendTables
from marchproxy_core.packet.engine_settings import BURST_NS, SECOND_NS, interval_ns
from marchproxy_core.packet.numbers import Numbers
from marchproxy_core.services import IPAddress, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from marchproxy_core.config import Settings
    from marchproxy_core.packet.arrangement import Half
    from marchproxy_core.packet.network import NetworkFacts
    from marchproxy_core.packet.tables import Tables
    from marchproxy_core.services import Endpoint

PROTOCOLS = {Protocol.TCP: 6, Protocol.UDP: 17}
_STRANGERS_NS = 5 * SECOND_NS
"""How long the services of a daemon before this one are kept until some hook asks for them."""
_BY_ADDRESS = layout.enumeration("mp_service_flag")["BY_ADDRESS"]


@final
class ServiceEntries:
    """The one writer of SERVICES; gives the services their numbers."""

    def __init__(self, tables: Tables, now_ns: int) -> None:
        """Take over what the tables have from before; they stay open for as long as this is used."""
        self._table = tables.services
        self.backends = BackendTables(tables)
        self._numbers: Numbers[str] = Numbers(1, tables.loads.max_entries, "EBPF_SERVICE_MAP_SIZE")
        self._entries: dict[bytes, bytes] = dict(items(tables.services))
        self._strangers_until_ns = now_ns + _STRANGERS_NS if self._entries else 0

    def name(self, number: int) -> str | None:
        """Return the name of the service that has a number."""
        return self._numbers.name(number)

    def number(self, name: str) -> int | None:
        """Return a service's number, None as long as it has none."""
        return self._numbers.known(name)

    def numbers(self, names: Iterable[str]) -> dict[str, int]:
        """Return the numbers of those services that have one."""
        return {name: number for name in names if (number := self._numbers.known(name)) is not None}

    @property
    def has_strangers(self) -> bool:
        """Whether services of a daemon before this one are kept that a hook may still ask for."""
        return self._strangers_until_ns > 0

    def strangers_are_due(self, now_ns: int) -> bool:
        """Say once that their time is over: from here on they are kept no longer."""
        if not 0 < self._strangers_until_ns < now_ns:
            return False
        self._strangers_until_ns = 0
        return True

    def is_strange(self, number: int) -> bool:
        """Whether it is of a service that a daemon before this one carried, and that a hook may still ask for."""
        return self.has_strangers and self._numbers.name(number) is None

    def strangers(self) -> set[int]:
        """Return the numbers of all such services."""
        return {number for number in map(number_in, self._entries.values()) if self.is_strange(number)}

    def give_numbers(self, halves: Iterable[Half], begin: Callable[[Iterable[int]], None]) -> None:
        """Give services that have none a number; those that a daemon before this one carried, the one they had.

        Args:
            halves: Of services.
            begin: Called with the numbers that were given.

        Raises:
            NoPlace: There are too many services; those before have theirs.
        """
        given: list[int] = []
        try:
            for half in halves:
                if self._numbers.known(half.service.name) is None:
                    for key in _keys(half):
                        if key in self._entries:
                            self._numbers.adopt(half.service.name, number_in(self._entries[key]))
                    given.append(self._numbers.of(half.service.name))
        finally:
            if given:
                begin(given)

    def prepare(
        self, halves: Iterable[Half], network: NetworkFacts, settings: Settings
    ) -> dict[bytes, bytes]:
        """Write all that the entries of services point to, and return the entries; numbers are given already.

        Raises:
            NoPlace: There are too many backends.
            BpfError: The kernel refuses a change.
        """
        entries: dict[bytes, bytes] = {}
        try:
            for half in halves:
                entries |= self._prepare_half(half, network, settings)
        finally:
            self.backends.show_picks()
        return entries

    def show(self, entries: dict[bytes, bytes]) -> None:
        """Have the engine see these entries, and those of strangers, and no others."""
        kept = {key: value for key, value in self._entries.items() if self.is_strange(number_in(value))}
        wanted = kept | entries
        for key in self._entries.keys() - wanted.keys():
            self._table.delete(key)
        for key, value in wanted.items():
            if self._entries.get(key) != value:
                self._table.update(key, value)
        self._entries = wanted

    def others(self, names: Collection[str]) -> list[int]:
        """Return the numbers of all services but these."""
        return self._numbers.others(names)

    def keep(self, names: Collection[str]) -> None:
        """Free the numbers of all services but these."""
        self._numbers.keep(names)

    def _prepare_half(self, half: Half, network: NetworkFacts, settings: Settings) -> dict[bytes, bytes]:
        service = half.service
        number = self._numbers.of(service.name)
        places = tuple(
            self.backends.put(endpoint, _sources(endpoint, network, settings))
            for endpoint in half.picks.endpoints
        )
        table = 2 * number + (half.version == 6)
        slots = half.picks.size if any(half.picks.weights) else 0
        if slots:
            self.backends.put_picks(table, half.picks, places)
        count = (
            settings.service_max_connections if service.max_connections is None else service.max_connections
        )
        rate = (
            settings.service_connection_rate if service.connection_rate is None else service.connection_rate
        )
        value = layout.SERVICE.pack(
            number=number,
            picks=table,
            slots=slots,
            hooks=half.hooks,
            flags=_BY_ADDRESS if half.picks.by_address else 0,
            max_active=count or 0,
            interval=interval_ns(rate),
            burst=BURST_NS,
        )
        return dict.fromkeys(_keys(half), value)


def service_key(ip: IPAddress, port: int, protocol: Protocol) -> bytes:
    """Return the key of a listen address."""
    return layout.SERVICE_KEY.pack(
        address=layout.address_bytes(ip), port=layout.port_bytes(port), protocol=PROTOCOLS[protocol]
    )


def number_in(entry: bytes) -> int:
    """Return the number of the service that an entry of SERVICES is of."""
    at = layout.SERVICE.offset("number")
    return int.from_bytes(entry[at : at + 4], "little")


def _keys(half: Half) -> list[bytes]:
    return [service_key(*key) for key in half.keys]


def _sources(endpoint: Endpoint, network: NetworkFacts, settings: Settings) -> list[IPAddress]:
    given = [ip for ip in settings.nat_source_addresses if ip.version == endpoint.ip.version]
    own = network.ways[endpoint.ip].source
    assert own is not None  # what has no way is not arranged
    return given or [own]
