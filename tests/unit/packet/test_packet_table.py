"""Every row of the packet table, on every build that it is true for."""

from __future__ import annotations

import pytest

from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.packets.row import KERNEL, Build
from marchproxy_core.testing.packets.running import Mismatch, run_row
from marchproxy_core.testing.packets.table import SUBJECTS, rows_of

BUILDS = [
    pytest.param(build, marks=[pytest.mark.root] if build in KERNEL else [], id=build.name.lower())
    for build in Build
]


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("build", BUILDS)
def test_the_engine_does_what_the_rows_say(engine_of, build, subject):
    engine, wrong = engine_of(build), []
    for row in rows_of(subject):
        if row.fits(build):
            try:
                run_row(engine, row)
            except Mismatch as mismatch:
                wrong.append(str(mismatch))
    assert not wrong, "\n".join(wrong)


def test_each_build_has_rows():
    said = [row for subject in SUBJECTS for row in rows_of(subject)]
    assert all(sum(row.fits(build) for row in said) > 400 for build in Build)


def test_no_two_rows_say_the_same():
    said = [row.says for subject in SUBJECTS for row in rows_of(subject)]
    assert len(said) == len(set(said))


def test_there_is_a_row_for_each_reason():
    shown = {step.reason for subject in SUBJECTS for row in rows_of(subject) for step in row.steps}
    assert shown == set(Reason)
