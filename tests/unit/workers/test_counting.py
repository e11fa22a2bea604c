"""What the control process reads of the counters, and what it clears of a worker that is gone."""

from __future__ import annotations

import os

import pytest

from marchproxy_core.model import ServiceStats
from marchproxy_core.services import Endpoint
from marchproxy_core.workers import ledger as cell
from marchproxy_core.workers.cells import ServiceCells
from marchproxy_core.workers.counting import forget_active, service_stats
from marchproxy_core.workers.ledger import Ledger

BACKEND = Endpoint.parse("192.0.2.9:80")
CELLS = ServiceCells(first=50, active={BACKEND: 7})


@pytest.fixture
def ledger():
    memory = Ledger.create(2)
    opened = Ledger(memory)
    os.close(memory)
    yield opened
    opened.close()


def add(ledger: Ledger, region: int, counts: dict[int, int]) -> None:
    for place, count in counts.items():
        ledger.regions[region][CELLS.first + place] += count


def test_nothing_counted_is_nothing_said(ledger) -> None:
    assert service_stats(ledger, CELLS) == ServiceStats(backend_active={str(BACKEND): 0})


def test_requests_are_summed_over_the_workers(ledger) -> None:
    last = cell.DURATIONS + len(cell.DURATION_BOUNDS_S)
    add(ledger, 1, {cell.ANSWERS["2xx"]: 3, cell.ANSWERS["5xx"]: 1, cell.DURATIONS: 3, last: 1})
    add(ledger, 2, {cell.ANSWERS["2xx"]: 2, cell.DURATIONS + 1: 2})
    add(ledger, 1, {cell.DURATION_SUM_US: 12_000_000, cell.RETRIES: 1, cell.CACHE["hit"]: 2})
    add(ledger, 2, {cell.DURATION_SUM_US: 3_500, cell.REUSED: 4, cell.WEBSOCKETS: 1, cell.CACHE["miss"]: 1})
    stats = service_stats(ledger, CELLS)
    assert stats.answers == {"2xx": 5, "5xx": 1}
    assert stats.durations == (3, 2, *[0] * (len(cell.DURATION_BOUNDS_S) - 2), 1)
    assert sum(stats.durations) == sum(stats.answers.values())
    assert stats.duration_sum_s == pytest.approx(12.0035)
    assert stats.cache == {"hit": 2, "miss": 1}
    assert (stats.retries, stats.reused, stats.websockets_active) == (1, 4, 1)


def test_a_worker_that_is_gone_has_nothing_open_and_what_it_counted_stays(ledger) -> None:
    for region in (1, 2):
        add(ledger, region, {cell.ACTIVE: 5, cell.REQUESTS_ACTIVE: 4, cell.WEBSOCKETS: 3, cell.RETRIES: 2})
        ledger.regions[region][CELLS.active[BACKEND]] = 5
    forget_active(ledger, 1, [CELLS])
    stats = service_stats(ledger, CELLS)
    assert (stats.connections_active, stats.websockets_active, stats.retries) == (5, 3, 4)
    assert stats.backend_active == {str(BACKEND): 5}
    assert ledger.total(CELLS.first + cell.REQUESTS_ACTIVE) == 4
