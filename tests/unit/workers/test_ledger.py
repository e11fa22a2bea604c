"""Counters that several processes share."""

from __future__ import annotations

import os
import subprocess
import sys

from marchproxy_core.drops import DropReason
from marchproxy_core.workers import ledger as cell
from marchproxy_core.workers.ledger import DROPS, FIRST_FREE, REGION_CELLS, SERVICE_CELLS, Ledger

ADD = """
import sys
from marchproxy_core.workers.ledger import Ledger
ledger = Ledger(int(sys.argv[1]), int(sys.argv[2]))
for _ in range(1000):
    ledger.mine[100] += int(sys.argv[2])
"""


def test_each_process_adds_in_its_own_region_and_all_see_the_total() -> None:
    memory = Ledger.create(2)
    try:
        ledger = Ledger(memory)
        adding = [
            subprocess.Popen([sys.executable, "-c", ADD, str(memory), str(region)], pass_fds=[memory])
            for region in (1, 2)
        ]
        for process in adding:
            assert process.wait() == 0
        ledger.mine[100] += 5
        assert ledger.total(100) == 3005
        assert [region[100] for region in ledger.regions] == [5, 1000, 2000]
    finally:
        os.close(memory)


def test_totals_of_cells_in_a_row_are_those_of_each_cell() -> None:
    memory = Ledger.create(2)
    try:
        ledger = Ledger(memory, 1)
        for place, region in enumerate(ledger.regions):
            region[100], region[102] = 1 + place, -place
        assert ledger.totals(99, 5) == [0, 6, 0, -3, 0]
        assert ledger.totals(99, 5) == [ledger.total(one) for one in range(99, 104)]
        ledger.close()
    finally:
        os.close(memory)


def test_every_counter_has_a_cell_of_its_own_within_the_service() -> None:
    assert set(DROPS) == set(DropReason)
    durations = range(cell.DURATIONS, cell.DURATIONS + len(cell.DURATION_BOUNDS_S) + 1)
    plain = (cell.OPENED, cell.ACTIVE, cell.BYTES_IN, cell.BYTES_OUT, cell.PACKETS_IN, cell.PACKETS_OUT)
    of_http = (cell.REQUESTS, cell.REQUESTS_ACTIVE, cell.RETRIES, cell.REUSED, cell.WEBSOCKETS)
    by_name = (*DROPS.values(), *cell.ANSWERS.values(), *cell.CACHE.values())
    cells = [*plain, *of_http, *by_name, cell.DURATION_SUM_US, *durations]
    assert sorted(cells) == list(range(SERVICE_CELLS))
    assert FIRST_FREE > 3


def test_bounds_of_durations_rise() -> None:
    assert list(cell.DURATION_BOUNDS_S) == sorted(set(cell.DURATION_BOUNDS_S))


def test_two_thousand_services_fit() -> None:
    assert (REGION_CELLS - FIRST_FREE) // (SERVICE_CELLS + 1) > 2000
