"""Counters that several processes share."""

from __future__ import annotations

import os
import subprocess
import sys

from marchproxy_core.drops import DropReason
from marchproxy_core.workers.ledger import DROPS, FIRST_FREE, SERVICE_CELLS, Ledger

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


def test_every_reason_has_a_cell_within_the_service() -> None:
    assert set(DROPS) == set(DropReason)
    assert len(set(DROPS.values())) == len(DROPS)
    assert max(DROPS.values()) == SERVICE_CELLS - 1
    assert FIRST_FREE > 3
