"""Counters in shared memory: every process adds in a region of its own and reads everybody's.

A *cell* is one signed 64-bit number at the same place in each region; its total is the sum over the regions.
Nobody writes to another's region, so no lock is needed: an aligned 64-bit store is seen whole on every machine
that Python's memoryview of format ``q`` runs natively on. Region 0 is the control process's.
"""

from __future__ import annotations

import mmap
import os
from typing import final

from marchproxy_core.drops import DropReason

REGION_CELLS = 1 << 18
"""Cells in a region: 2 MiB of address space; only pages that are written to take memory."""

# Cells at the beginning of each region.
BEAT = 0
"""A worker's last heartbeat, in nanoseconds of CLOCK_MONOTONIC; only its own region's makes sense."""
ALL_ACTIVE = 1
"""Connections and flows of all services that are open."""
ALL_OPENED = 2
MEMORY_FULL = 3
"""In the control process's region: 1 while the daemon uses more than ``MAX_MEMORY_MB``."""
FIRST_FREE = 8

# Cells of a service, from its first one on.
OPENED, ACTIVE, BYTES_IN, BYTES_OUT, PACKETS_IN, PACKETS_OUT = range(6)
DROPS = {reason: 6 + place for place, reason in enumerate(DropReason)}
_HTTP = 6 + len(DROPS)
ANSWERS = {f"{digit}xx": _HTTP + digit - 1 for digit in range(1, 6)}
"""Requests by the class of their status."""
REQUESTS = _HTTP + 5
"""Requests that were taken in; refused ones are among the drops alone."""
REQUESTS_ACTIVE = _HTTP + 6
RETRIES = _HTTP + 7
REUSED = _HTTP + 8
"""Requests sent on a connection to a backend that had served before."""
WEBSOCKETS = _HTTP + 9
"""WebSocket connections that are open."""
CACHE = {
    outcome: _HTTP + 10 + place
    for place, outcome in enumerate(("hit", "stale", "revalidated", "miss", "bypass"))
}
DURATION_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DURATION_SUM_US = _HTTP + 10 + len(CACHE)
"""What all requests took together, in microseconds."""
DURATIONS = DURATION_SUM_US + 1
"""The first of one cell for each bound, for requests that took no longer and longer than the bound before; and a
last one for those that took longer than all bounds."""
SERVICE_CELLS = DURATIONS + len(DURATION_BOUNDS_S) + 1


@final
class Ledger:
    """All regions, mapped into this process."""

    def __init__(self, descriptor: int, region: int = 0) -> None:
        """Map the memory behind a descriptor, which the caller may close afterwards.

        Args:
            descriptor: As :meth:`create` made it, or inherited.
            region: The region of this process.
        """
        size = os.fstat(descriptor).st_size
        self._memory = mmap.mmap(descriptor, size)
        with memoryview(self._memory) as whole, whole.cast("q") as cells:
            self.regions = tuple(
                cells[start : start + REGION_CELLS] for start in range(0, len(cells), REGION_CELLS)
            )
        """Each region's cells."""
        self.mine = self.regions[region]
        """The cells of this process's region, the only ones that it writes."""

    @staticmethod
    def create(workers: int) -> int:
        """Make the memory for so many worker processes and the control process; the caller closes the descriptor."""
        descriptor = os.memfd_create("marchproxy-counters", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, (workers + 1) * REGION_CELLS * 8)
        return descriptor

    def total(self, cell: int) -> int:
        """Return the sum of a cell over all regions."""
        return sum([region[cell] for region in self.regions])

    def totals(self, first: int, length: int) -> list[int]:
        """Return the sums of cells in a row; for many cells far cheaper than one by one."""
        return [
            sum(cells)
            for cells in zip(
                *(region[first : first + length].tolist() for region in self.regions), strict=True
            )
        ]

    def close(self) -> None:
        """Unmap the memory; nothing can be read or counted afterwards."""
        for region in self.regions:
            region.release()
        self._memory.close()
