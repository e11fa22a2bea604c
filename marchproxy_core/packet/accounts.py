"""What is counted of each service: flows that open, are open and end, and packets. Blocks.

The engine counts what it does. That flows end, only this sees, so it counts that; once for each flow, whoever ends it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, final

from marchproxy_core.drops import DropReason
from marchproxy_core.model import ServiceStats
from marchproxy_core.packet.counting import Loads, Meter
from marchproxy_core.packet.reasons import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from marchproxy_core.packet.flows import FlowBook
    from marchproxy_core.packet.tables import Tables
    from marchproxy_core.services import Endpoint


@final
class Accounts:
    """Ends flows, and keeps count, by the services' numbers."""

    def __init__(self, tables: Tables, book: FlowBook) -> None:
        """Take over what the tables have from before; both stay open for as long as this is used."""
        self.meter = Meter(tables)
        self._book = book
        self._loads = Loads(tables)
        self._cut = {reason: Counter[int]() for reason in (DropReason.IDLE_TIMEOUT, DropReason.FLUSHED)}
        self._loads.put_right(0, len(book.uncounted(book.live())), 0)

    def close(self) -> None:
        """Let go of the tables' memory."""
        self._loads.close()

    def begin(self, numbers: Iterable[int]) -> None:
        """Count for services from here on, whose flows may be there already."""
        there = self._book.uncounted(self._book.live())
        active, opening = self._book.count(there), self._book.count(self._book.unanswered(there))
        for number in numbers:
            self._loads.put_right(number, active[number], opening[number])
            for hook in Hook:
                self.meter.begin(number, hook)

    def end(self, places: list[int], reason: DropReason | None = None) -> None:
        """End flows.

        Args:
            places: Where they are.
            reason: Under which those that were not over yet are counted as drops; None: nowhere.
        """
        not_over = self._book.uncounted(places)
        if reason is not None:
            self._cut[reason].update(self._book.count(not_over))
        self._count_ends(not_over)
        self._book.end(places)

    def look(self, tick: int) -> None:
        """Count the flows that are over by themselves, end those that are idle, and free the places of the ended.

        Args:
            tick: The engine's time now.
        """
        self._count_ends(self._book.newly_closed())
        self.end(self._book.expired(tick), DropReason.IDLE_TIMEOUT)
        self._book.recycle()

    def stats(self, number: int, hook: Hook, active: Mapping[str, int] | None) -> ServiceStats:
        """Return what a hook counted of a service.

        Args:
            number: The service's.
            hook: Whose packets.
            active: Its open flows by backend; None when another hook tells of them, since flows are nobody's own.
        """
        counted = self.meter.read(number, hook)
        cut = {reason.value: flows[number] for reason, flows in self._cut.items() if flows[number]}
        return ServiceStats(
            connections_opened=counted.opened,
            connections_active=sum((active or {}).values()),
            bytes_in=counted.bytes_in,
            bytes_out=counted.bytes_out,
            packets_in=counted.packets_in,
            packets_out=counted.packets_out,
            drops=counted.drops if active is None else {**counted.drops, **cut},
            backend_active=active or {},
        )

    def active(self, endpoint_at: Callable[[int], Endpoint | None]) -> dict[int, dict[str, int]]:
        """Return the open flows by service and backend.

        Args:
            endpoint_at: Tells who has a place among the backends.
        """
        services, backends = self._book.services(), self._book.backends()
        found: dict[int, dict[str, int]] = {}
        for (number, backend), count in Counter(
            (services[place], backends[place]) for place in self._book.open()
        ).items():
            endpoint = endpoint_at(backend)
            found.setdefault(number, {})[str(endpoint) if endpoint else "gone"] = count
        return found

    def _count_ends(self, places: list[int]) -> None:
        for number, flows in self._book.count(places).items():
            self._loads.ended(number, flows)
        for number, flows in self._book.count(self._book.unanswered(places)).items():
            self._loads.lapsed(number, flows)
