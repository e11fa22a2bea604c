"""Keeps the engine's tables as the services want them, and tells what they count. Blocks: call it in threads.

One for all hooks of a process, since they share the tables. Order matters in each change: whatever an entry
points to is there before the entry, and goes after it, so a packet meets the old or the new state, never a mixture.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, final

import structlog

from marchproxy_core.bpf import items
from marchproxy_core.drops import DropReason
from marchproxy_core.model import ServiceStats
from marchproxy_core.packet import layout
from marchproxy_core.packet.arrangement import Fitness, arrange, destinations
from marchproxy_core.packet.backends import BackendTables
from marchproxy_core.packet.counting import Loads, Meter
from marchproxy_core.packet.door import DoorTable
from marchproxy_core.packet.flows import FlowBook, tick_of, ticks_for
from marchproxy_core.packet.lately import DropLog
from marchproxy_core.packet.network import NetworkFacts, default_port_range, look_at_network
from marchproxy_core.packet.numbers import Numbers
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.services import IPAddress, Protocol

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.door import Rule
    from marchproxy_core.model import Assignment, ServiceTable
    from marchproxy_core.packet.arrangement import Arrangement, Half
    from marchproxy_core.packet.tables import Tables
    from marchproxy_core.services import Endpoint

log = structlog.get_logger()

PROTOCOLS = {Protocol.TCP: 6, Protocol.UDP: 17}
_SECOND_NS = 1_000_000_000
_BURST_NS = _SECOND_NS
"""By how much new flows may be early: a second's worth and one at once, as limits.default_burst has it."""
_OPENING_S = 16.0
"""How long a TCP flow is kept that no backend answers: SYNs at 0, 1, 3 and 7 s (tcp(7)), and time for the answer."""
_CLOSING_S = 10.0
_STRANGERS_NS = 5 * _SECOND_NS
"""How long the services of a daemon before this one are kept until some hook asks for them."""
_BY_ADDRESS = layout.enumeration("mp_service_flag")["BY_ADDRESS"]

Look = Callable[[Iterable[IPAddress]], NetworkFacts]
Judge = Callable[[Mapping[int, str]], Fitness]
"""Says which of the interfaces, names by index, a hook's program can be on; blocks."""


@final
class Control:
    """The tables' one writer. Its calls exclude each other, from whichever threads they come."""

    def __init__(self, tables: Tables, settings: Settings, *, look: Look = look_at_network) -> None:
        """Take over what the tables have from before.

        Args:
            tables: Open; closed by the caller, after this.
            settings: Those that the daemon started with.
            look: Reads the facts of the network.
        """
        self._tables = tables
        self._settings = settings
        self._look = look
        self._lock = threading.Lock()
        self._demands: dict[Hook, Mapping[str, Assignment]] = {}
        self._judges: dict[Hook, Judge] = {}
        self._book = FlowBook(tables)
        self._loads = Loads(tables)
        self._meter = Meter(tables)
        self._backends = BackendTables(tables)
        self._numbers: Numbers[str] = Numbers(1, tables.loads.max_entries, "EBPF_SERVICE_MAP_SIZE")
        self._entries: dict[bytes, bytes] = dict(items(tables.services))
        self._hooks: Counter[int] = Counter()
        """Bits of the hooks of each service, by number."""
        self._live_hooks = 0
        self._idle: Counter[int] = Counter()
        self._swept_ns = 0
        self._rules: tuple[Rule, ...] = ()
        self._door = DoorTable(tables)
        self._drop_log = DropLog(tables, self._numbers.name)
        self._generation = 0
        self._strangers_until_ns = time.monotonic_ns() + _STRANGERS_NS if self._entries else 0
        self._loads.put_right(0, len(self._book.uncounted(self._book.live())), 0)
        self.network = NetworkFacts(addresses={}, ways={}, names={})
        """As it was at the last look."""

    def close(self) -> None:
        """Let go of the tables' memory; nothing in them changes."""
        self._book.close()
        self._loads.close()

    def demand(self, hook: Hook, table: ServiceTable | None, judge: Judge | None = None) -> Arrangement:
        """Have the tables hold what a hook is to carry from now on; None when it carries nothing any more.

        Flows of services that are gone are ended. Those to backends without weight, or that are no longer among the
        service's, go on.

        Args:
            hook: Whose program asks.
            table: What it is to carry.
            judge: Says where that program can be, at each look at the network; everywhere by default.

        Raises:
            NoPlace: A table is too small for the services or their backends.
            BpfError: The kernel refuses a change.
        """
        with self._lock:
            if table is None:
                self._demands.pop(hook, None)
                self._judges.pop(hook, None)
                self._set_live(self._live_hooks & ~hook.bit)
            else:
                if hook not in self._demands:
                    self._meter.restart(hook)
                self._demands[hook] = table.assignments
                self._judges[hook] = judge or (lambda names: Fitness())
                self._settings, self._rules = table.settings, table.door
                self._write_settings()
            return self._rearrange()

    def has_program(self, hook: Hook) -> None:
        """Take note that the hook's program is on its interfaces: what a higher one cannot forward meets it."""
        with self._lock:
            self._set_live(self._live_hooks | hook.bit)

    def rearrange(self) -> Arrangement:
        """Look at the network, which has changed, and write what differs; raises as :meth:`demand` does.

        Next hops that the engine remembers are asked for anew.
        """
        with self._lock:
            self._generation += 1
            self._tables.change_settings(generation=self._generation & 0xFFFF)
            return self._rearrange()

    def sweep(self) -> None:
        """End flows that are idle, and free the places of those that ended; once a second, however often called."""
        with self._lock:
            now = time.monotonic_ns()
            if now - self._swept_ns < _SECOND_NS * 9 // 10:
                return
            self._swept_ns = now
            if self._strangers_until_ns and now > self._strangers_until_ns:
                self._strangers_until_ns = 0
                self._rearrange()
            self._count_ends(self._book.newly_closed())
            expired = self._book.expired(tick_of(now))
            self._idle.update(self._book.count(self._book.uncounted(expired)))
            self._end(expired)
            self._book.recycle()
            dropped = partial(self._meter.dropped, malformed=self._settings.door_drop_malformed)
            self._drop_log.look(dropped, now / _SECOND_NS)

    def has_flows(self) -> bool:
        """Whether there are flows, of whichever hook, or services of an earlier daemon that may open some."""
        with self._lock:
            return self._strangers_until_ns > 0 or bool(self._book.live())

    def stats(self, hook: Hook) -> dict[str, ServiceStats]:
        """Return what a hook counted since this took the tables over, by service."""
        with self._lock:
            active = self._active_by_backend()
            return {
                name: self._service_stats(name, number, hook, active.get(number, {}))
                for name in [*self._demands.get(hook, ())]
                if (number := self._numbers.known(name)) is not None
            }

    def packets_seen(self, hook: Hook) -> Mapping[str, int]:
        """Return all packets that a hook saw since it first asked for services, by what became of them."""
        with self._lock:
            return self._meter.seen(hook)

    def _service_stats(self, name: str, number: int, hook: Hook, active: Mapping[str, int]) -> ServiceStats:
        counted = self._meter.read(number, hook)
        # Flows are nobody's own: the highest of the hooks that carry the service tells of them.
        tells = hook is min(one for one, table in self._demands.items() if name in table)
        idle = {DropReason.IDLE_TIMEOUT.value: self._idle[number]} if tells and self._idle[number] else {}
        return ServiceStats(
            connections_opened=counted.opened,
            connections_active=sum(active.values()) if tells else 0,
            bytes_in=counted.bytes_in,
            bytes_out=counted.bytes_out,
            packets_in=counted.packets_in,
            packets_out=counted.packets_out,
            drops={**counted.drops, **idle},
            backend_active=active if tells else {},
        )

    def _active_by_backend(self) -> dict[int, dict[str, int]]:
        services, backends = self._book.services(), self._book.backends()
        found: dict[int, dict[str, int]] = {}
        for (number, backend), count in Counter(
            (services[place], backends[place]) for place in self._book.open()
        ).items():
            endpoint = self._backends.endpoint(backend)
            found.setdefault(number, {})[str(endpoint) if endpoint else "gone"] = count
        return found

    def _write_settings(self) -> None:
        settings = self._settings
        first, last = settings.nat_port_range or default_port_range()
        counts = [
            one for one in (settings.max_connections, settings.global_max_connections) if one is not None
        ]
        established = ticks_for(settings.idle_timeout)
        self._tables.change_settings(
            first_port=first,
            last_port=last,
            established_ticks=established,
            opening_ticks=min(ticks_for(_OPENING_S), established),
            closing_ticks=min(ticks_for(_CLOSING_S), established),
            max_active=min(counts, default=0),
            interval=_interval_ns(settings.global_connection_rate),
            burst=_BURST_NS,
        )

    def _set_live(self, hooks: int) -> None:
        if hooks != self._live_hooks:
            self._live_hooks = hooks
            self._tables.change_settings(live_hooks=hooks)

    def _rearrange(self) -> Arrangement:
        assignments = [one for table in self._demands.values() for one in table.values()]
        network = self.network = self._look(destinations(assignments))
        fitness = {hook: judge(network.names) for hook, judge in self._judges.items()}
        arrangement = arrange(self._demands, network, fitness)
        entries: dict[bytes, bytes] = {}
        self._give_numbers(arrangement.halves)
        try:
            for half in arrangement.halves:
                entries |= self._write_half(half, network)
        finally:
            self._backends.show_picks()
        # Before the services are: nobody is to slip in.
        strange = {number for number in map(number_in, self._entries.values()) if self._is_strange(number)}
        self._door.follow(self._rules, self._numbers_of_services(), strange, self._settings)
        for key in self._entries.keys() - entries.keys():
            if self._is_strange(number_in(self._entries[key])):
                entries[key] = self._entries[key]
            else:
                self._tables.services.delete(key)
        for key, value in entries.items():
            if self._entries.get(key) != value:
                self._tables.services.update(key, value)
        self._entries = entries
        self._share_flows(arrangement)
        self._forget_what_is_gone()
        return arrangement

    def _share_flows(self, arrangement: Arrangement) -> None:
        """Let a service's hooks forward its older flows too: one that loses its program then leaves them to another."""
        hooks: Counter[int] = Counter()
        for half in arrangement.halves:
            hooks[self._numbers.of(half.service.name)] |= half.hooks
        if hooks != self._hooks:
            self._hooks = hooks
            self._book.share(hooks)

    def _write_half(self, half: Half, network: NetworkFacts) -> dict[bytes, bytes]:
        """Write all that the entries of half a service point to, and return the entries."""
        service, settings = half.service, self._settings
        number = self._numbers.of(service.name)
        places = tuple(
            self._backends.put(endpoint, self._sources(endpoint, network))
            for endpoint in half.picks.endpoints
        )
        table = 2 * number + (half.version == 6)
        slots = half.picks.size if any(half.picks.weights) else 0
        if slots:
            self._backends.put_picks(table, half.picks, places)
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
            interval=_interval_ns(rate),
            burst=_BURST_NS,
        )
        return dict.fromkeys(_keys(half), value)

    def _give_numbers(self, halves: Iterable[Half]) -> None:
        """Give services that have none a number; those that a daemon before this one carried, the one they had."""
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
                self._begin_counting(given)

    def _begin_counting(self, numbers: Iterable[int]) -> None:
        there = self._book.uncounted(self._book.live())
        active, opening = self._book.count(there), self._book.count(self._book.unanswered(there))
        for number in numbers:
            self._loads.put_right(number, active[number], opening[number])
            for hook in Hook:
                self._meter.begin(number, hook)

    def _numbers_of_services(self) -> dict[str, int]:
        names = {name for table in self._demands.values() for name in table}
        return {name: number for name in names if (number := self._numbers.known(name)) is not None}

    def _is_strange(self, number: int) -> bool:
        """Whether it is of a service that a daemon before this one carried, and that a hook may still ask for."""
        return self._strangers_until_ns > 0 and self._numbers.name(number) is None

    def _sources(self, endpoint: Endpoint, network: NetworkFacts) -> list[IPAddress]:
        given = [ip for ip in self._settings.nat_source_addresses if ip.version == endpoint.ip.version]
        own = network.ways[endpoint.ip].source
        assert own is not None  # what has no way is not arranged
        return given or [own]

    def _forget_what_is_gone(self) -> None:
        """End the flows of services that are in no table any more; free the places of what nobody needs."""
        assignments = [item for table in self._demands.values() for item in table.items()]
        names = {name for name, _ in assignments}
        services, backends = self._book.services(), self._book.backends()
        gone = [
            place
            for place in self._book.live()
            if self._numbers.name(services[place]) not in names and not self._is_strange(services[place])
        ]
        self._end(gone)
        for number in self._numbers.others(names):
            self._meter.end(number)
        self._numbers.keep(names)
        endpoints = {view.backend.endpoint for _, one in assignments for view in one.backends}
        used = {self._backends.endpoint(backends[place]) for place in self._book.live()}
        self._backends.keep(endpoints | {one for one in used if one is not None})

    def _end(self, places: list[int]) -> None:
        self._count_ends(self._book.uncounted(places))
        self._book.end(places)

    def _count_ends(self, places: list[int]) -> None:
        for number, flows in self._book.count(places).items():
            self._loads.ended(number, flows)
        for number, flows in self._book.count(self._book.unanswered(places)).items():
            self._loads.lapsed(number, flows)


def service_key(ip: IPAddress, port: int, protocol: Protocol) -> bytes:
    """Return the key of a listen address."""
    return layout.SERVICE_KEY.pack(
        address=layout.address_bytes(ip), port=layout.port_bytes(port), protocol=PROTOCOLS[protocol]
    )


def _keys(half: Half) -> list[bytes]:
    return [service_key(*key) for key in half.keys]


def number_in(entry: bytes) -> int:
    """Return the number of the service that an entry of SERVICES is of."""
    at = layout.SERVICE.offset("number")
    return int.from_bytes(entry[at : at + 4], "little")


def _interval_ns(rate: float | None) -> int:
    return int(_SECOND_NS / rate) if rate else 0
