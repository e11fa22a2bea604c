"""Which cells of the ledger belong to which service and backend. Pure; lives in the control process.

Cells of services that are gone are given out again only once no worker can write to them any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_core.errors import ListenError
from marchproxy_core.services import Endpoint
from marchproxy_core.workers.ledger import FIRST_FREE, REGION_CELLS, SERVICE_CELLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from marchproxy_core.services import Service


@attrs.frozen(kw_only=True)
class ServiceCells:
    """The cells of one service."""

    first: int
    """Of ``SERVICE_CELLS`` in a row."""
    active: Mapping[Endpoint, int]
    """For each backend the cell that counts its open connections and flows."""


@final
@attrs.define(eq=False)
class CellBook:
    """Gives cells to services, by name, for as long as a service is in the table."""

    _size: int = REGION_CELLS
    _next: int = FIRST_FREE
    _given: dict[str, ServiceCells] = attrs.field(factory=dict, init=False)
    _left: list[tuple[int, int, int]] = attrs.field(factory=list, init=False)
    """Blocks given back: table version, first cell, length."""
    _free: dict[int, list[int]] = attrs.field(factory=dict, init=False)

    @property
    def given(self) -> Mapping[str, ServiceCells]:
        """The cells of each service now."""
        return self._given

    def assign(self, services: Iterable[Service], version: int) -> None:
        """Make the book fit a table: new services and backends get cells, those gone leave theirs.

        Args:
            services: All services of the table.
            version: The table's version; what is given back with it is free once every worker has it.

        Raises:
            ListenError: More services and backends than the ledger has cells for.
        """
        services = tuple(services)
        names = {service.name for service in services}
        for name in [name for name in self._given if name not in names]:
            gone = self._given.pop(name)
            self._left.append((version, gone.first, SERVICE_CELLS))
            self._left.extend((version, cell, 1) for cell in gone.active.values())
        for service in services:
            had = self._given.get(service.name)
            # A backend that a reload took out keeps its cell: its connections go on.
            active = dict(had.active) if had else {}
            for backend in service.backends:
                if backend.endpoint not in active:
                    active[backend.endpoint] = self._take(1)
            first = had.first if had else self._take(SERVICE_CELLS)
            self._given[service.name] = ServiceCells(first=first, active=active)

    def reclaim(self, version: int, clear: Callable[[int, int], None]) -> None:
        """Free what was given back up to a table version that every worker has.

        Args:
            version: The version.
            clear: Called with first cell and length of each block; is to zero them in every region.
        """
        for block in [block for block in self._left if block[0] <= version]:
            self._left.remove(block)
            clear(block[1], block[2])
            self._free.setdefault(block[2], []).append(block[1])

    def _take(self, length: int) -> int:
        free = self._free.get(length)
        if free:
            return free.pop()
        if self._next + length > self._size:
            raise ListenError(
                f"more services and backends than the {self._size} counters of a worker pool hold"
                " - fix: split the configuration over two daemons"
            )
        first = self._next
        self._next += length
        return first
