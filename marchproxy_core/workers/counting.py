"""Reading and clearing the ledger, from the control process's side."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from marchproxy_core.model import ServiceStats
from marchproxy_core.workers import ledger as cell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_core.workers.cells import ServiceCells
    from marchproxy_core.workers.ledger import Ledger


def service_stats(ledger: Ledger, cells: ServiceCells) -> ServiceStats:
    """Sum up what all workers counted of a service."""
    counts = ledger.totals(cells.first, cell.SERVICE_CELLS)
    durations = tuple(counts[cell.DURATIONS : cell.DURATIONS + len(cell.DURATION_BOUNDS_S) + 1])
    return ServiceStats(
        connections_opened=counts[cell.OPENED],
        connections_active=counts[cell.ACTIVE],
        bytes_in=counts[cell.BYTES_IN],
        bytes_out=counts[cell.BYTES_OUT],
        packets_in=counts[cell.PACKETS_IN],
        packets_out=counts[cell.PACKETS_OUT],
        drops={reason.value: counts[place] for reason, place in cell.DROPS.items() if counts[place]},
        backend_active={str(endpoint): ledger.total(one) for endpoint, one in cells.active.items()},
        answers={status: counts[place] for status, place in cell.ANSWERS.items() if counts[place]},
        durations=durations if any(durations) else (),
        duration_sum_s=counts[cell.DURATION_SUM_US] / 1e6,
        cache={outcome: counts[place] for outcome, place in cell.CACHE.items() if counts[place]},
        retries=counts[cell.RETRIES],
        reused=counts[cell.REUSED],
        websockets_active=counts[cell.WEBSOCKETS],
    )


def beat(ledger: Ledger, region: int) -> None:
    """Give a worker that is about to start a fresh heartbeat."""
    ledger.regions[region][cell.BEAT] = time.monotonic_ns()


def forget_active(ledger: Ledger, region: int, services: Iterable[ServiceCells]) -> None:
    """Count nothing as open any more of a worker that is gone; what only grows stays."""
    counts = ledger.regions[region]
    counts[cell.ALL_ACTIVE] = 0
    for cells in services:
        for active in (cell.ACTIVE, cell.REQUESTS_ACTIVE, cell.WEBSOCKETS):
            counts[cells.first + active] = 0
        for one in cells.active.values():
            counts[one] = 0


def clear(ledger: Ledger, first: int, length: int) -> None:
    """Zero cells in every region, before they are given to another service."""
    for region in ledger.regions:
        region[first : first + length] = memoryview(bytes(8 * length)).cast("q")
