"""Every row of the packet table, on every build that it is true for."""

from __future__ import annotations

import pytest

from marchproxy_core.testing.packets.row import PLAIN
from marchproxy_core.testing.packets.running import run_row
from marchproxy_core.testing.packets.table import rows

CASES = [
    pytest.param(kind, row, id=f"{kind.value}: {row.says}")
    for kind in sorted(PLAIN, key=lambda kind: kind.value)
    for row in rows()
    if row.fits(kind)
]


@pytest.mark.parametrize(("kind", "row"), CASES)
def test_the_engine_does_what_the_row_says(engine_of, kind, row):
    run_row(engine_of(kind), row)


def test_no_two_rows_say_the_same():
    said = [row.says for row in rows()]
    assert len(said) == len(set(said))
