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

from marchproxy_core.drops import DropReason
from marchproxy_core.packet.accounts import Accounts
from marchproxy_core.packet.arrangement import Fitness, arrange, destinations
from marchproxy_core.packet.door import DoorTable
from marchproxy_core.packet.engine_settings import SECOND_NS, in_engine
from marchproxy_core.packet.entries import ServiceEntries
from marchproxy_core.packet.flows import FlowBook, tick_of
from marchproxy_core.packet.lately import DropLog
from marchproxy_core.packet.network import NetworkFacts, look_at_network
from marchproxy_core.services import IPAddress

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.door import Rule
    from marchproxy_core.model import Assignment, ServiceStats, ServiceTable
    from marchproxy_core.packet.arrangement import Arrangement
    from marchproxy_core.packet.reasons import Hook
    from marchproxy_core.packet.tables import Tables
    from marchproxy_core.services import Endpoint

Look = Callable[[Iterable[IPAddress]], NetworkFacts]
Judge = Callable[[Mapping[int, str]], Fitness]
"""Says which of the interfaces, names by index, a hook's program can be on; blocks."""


@final
class Control:
    """The tables' one writer. Its calls exclude each other, from whichever threads they come."""

    def __init__(
        self,
        tables: Tables,
        settings: Settings,
        *,
        look: Look = look_at_network,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take over what the tables have from before.

        Args:
            tables: Open; closed by the caller, after this.
            settings: Those that the daemon started with.
            look: Reads the facts of the network.
            now_ns: CLOCK_MONOTONIC, which is the engine's clock too.
        """
        self._tables = tables
        self._settings = settings
        self._look = look
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._demands: dict[Hook, Mapping[str, Assignment]] = {}
        self._judges: dict[Hook, Judge] = {}
        self._book = FlowBook(tables)
        self._accounts = Accounts(tables, self._book)
        self._entries = ServiceEntries(tables, now_ns())
        self._hooks: Counter[int] = Counter()
        """Bits of the hooks of each service, by number."""
        self._flushed: set[tuple[int, Endpoint]] = set()
        """Backends, each with the number of the service that has it flushed."""
        self._live_hooks = 0
        self._swept_ns = 0
        self._rules: tuple[Rule, ...] = ()
        self._door = DoorTable(tables)
        self._drop_log = DropLog(tables, self._entries.name)
        self._generation = 0
        self.network = NetworkFacts(addresses={}, ways={}, names={})
        """As it was at the last look."""

    def close(self) -> None:
        """Let go of the tables' memory; nothing in them changes."""
        self._book.close()
        self._accounts.close()

    def demand(self, hook: Hook, table: ServiceTable | None, judge: Judge | None = None) -> Arrangement:
        """Have the tables hold what a hook is to carry from now on; None when it carries nothing any more.

        Flows of services that are gone are ended, and those to backends that are flushed. Those to backends without
        weight, or that are no longer among the service's, go on.

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
                    self._accounts.meter.restart(hook)
                self._demands[hook] = table.assignments
                self._judges[hook] = judge or (lambda names: Fitness())
                self._settings, self._rules = table.settings, table.door
                self._tables.change_settings(**in_engine(table.settings))
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
        """End flows that are idle or flushed, and free the places of the ended; once a second, however often called."""
        with self._lock:
            now = self._now_ns()
            if now - self._swept_ns < SECOND_NS * 9 // 10:
                return
            self._swept_ns = now
            if self._entries.strangers_are_due(now):
                self._rearrange()
            # A packet that was under way as the entries changed may have opened one more since.
            self._end_flushed()
            self._accounts.look(tick_of(now))
            dropped = partial(self._accounts.meter.dropped, malformed=self._settings.door_drop_malformed)
            self._drop_log.look(dropped, now / SECOND_NS)

    def has_flows(self) -> bool:
        """Whether there are flows, of whichever hook, or services of an earlier daemon that may open some."""
        with self._lock:
            return self._entries.has_strangers or bool(self._book.live())

    def stats(self, hook: Hook) -> dict[str, ServiceStats]:
        """Return what a hook counted since this took the tables over, by service."""
        with self._lock:
            active = self._accounts.active(self._entries.backends.endpoint)
            return {
                name: self._accounts.stats(
                    number, hook, active.get(number, {}) if self._tells(hook, name) else None
                )
                for name, number in self._entries.numbers(self._demands.get(hook, ())).items()
            }

    def packets_seen(self, hook: Hook) -> Mapping[str, int]:
        """Return all packets that a hook saw since it first asked for services, by what became of them."""
        with self._lock:
            return self._accounts.meter.seen(hook)

    def _tells(self, hook: Hook, service: str) -> bool:
        """Whether this hook tells of a service's flows: the highest of those that carry it."""
        return hook is min(one for one, table in self._demands.items() if service in table)

    def _set_live(self, hooks: int) -> None:
        if hooks != self._live_hooks:
            self._live_hooks = hooks
            self._tables.change_settings(live_hooks=hooks)

    def _rearrange(self) -> Arrangement:
        assignments = [one for table in self._demands.values() for one in table.values()]
        network = self.network = self._look(destinations(assignments))
        fitness = {hook: judge(network.names) for hook, judge in self._judges.items()}
        arrangement = arrange(self._demands, network, fitness)
        self._entries.give_numbers(arrangement.halves, self._accounts.begin)
        entries = self._entries.prepare(arrangement.halves, network, self._settings)
        # Before the services are: nobody is to slip in.
        names = {name for table in self._demands.values() for name in table}
        self._door.follow(
            self._rules, self._entries.numbers(names), self._entries.strangers(), self._settings
        )
        self._entries.show(entries)
        self._share_flows(arrangement)
        self._flushed = self._find_flushed()
        self._end_flushed()
        self._forget_what_is_gone()
        return arrangement

    def _share_flows(self, arrangement: Arrangement) -> None:
        """Let a service's hooks forward its older flows too: one that loses its program then leaves them to another."""
        hooks: Counter[int] = Counter()
        for half in arrangement.halves:
            number = self._entries.number(half.service.name)
            assert number is not None  # each half of the arrangement was given one
            hooks[number] |= half.hooks
        if hooks != self._hooks:
            self._hooks = hooks
            self._book.share(hooks)

    def _find_flushed(self) -> set[tuple[int, Endpoint]]:
        return {
            (number, endpoint)
            for table in self._demands.values()
            for name, number in self._entries.numbers(table).items()
            for endpoint in table[name].flushed
        }

    def _end_flushed(self) -> None:
        """End the flows of flushed backends; once no entry leads to them any more, else they would come back."""
        if not self._flushed:
            return
        services, backends = self._book.services(), self._book.backends()
        endpoint_at = self._entries.backends.endpoint
        places = [
            place
            for place in self._book.live()
            if (services[place], endpoint_at(backends[place])) in self._flushed
        ]
        self._accounts.end(places, DropReason.FLUSHED)

    def _forget_what_is_gone(self) -> None:
        """End the flows of services that are in no table any more; free the places of what nobody needs."""
        assignments = [item for table in self._demands.values() for item in table.items()]
        names = {name for name, _ in assignments}
        services, backends = self._book.services(), self._book.backends()
        self._accounts.end(
            [
                place
                for place in self._book.live()
                if self._entries.name(services[place]) not in names
                and not self._entries.is_strange(services[place])
            ]
        )
        for number in self._entries.others(names):
            self._accounts.meter.end(number)
        self._entries.keep(names)
        endpoints = {view.backend.endpoint for _, one in assignments for view in one.backends}
        used = {self._entries.backends.endpoint(backends[place]) for place in self._book.live()}
        self._entries.backends.keep(endpoints | {one for one in used if one is not None})
