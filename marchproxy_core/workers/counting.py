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
    total, first = ledger.total, cells.first
    drops = {reason.value: total(first + offset) for reason, offset in cell.DROPS.items()}
    return ServiceStats(
        connections_opened=total(first + cell.OPENED),
        connections_active=total(first + cell.ACTIVE),
        bytes_in=total(first + cell.BYTES_IN),
        bytes_out=total(first + cell.BYTES_OUT),
        packets_in=total(first + cell.PACKETS_IN),
        packets_out=total(first + cell.PACKETS_OUT),
        drops={reason: count for reason, count in drops.items() if count},
        backend_active={str(endpoint): total(one) for endpoint, one in cells.active.items()},
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
