"""Every tier is seen to do what docs/parity.md says, and the same where it must."""

from __future__ import annotations

import pytest
import trio

from marchproxy_core.testing.lab import LabUnavailable
from marchproxy_core.testing.pytest_plugin import leave_out
from tests.parity.document import COMMAND, DOCUMENT, document
from tests.parity.running import observe
from tests.parity.scenarios import SCENARIOS

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def rows():
    """What one run of all scenarios saw."""
    try:
        return trio.run(observe, SCENARIOS)
    except* LabUnavailable as missing:
        leave_out(str(missing.exceptions[0]))


@pytest.mark.parametrize("question", [one.question for one in SCENARIOS if one.alike])
def test_every_tier_shows_the_same(rows, question):
    (row,) = [row for row in rows if row.scenario.question == question]
    assert len(set(row.seen.values())) == 1, row.seen


def test_ebpf_and_xdp_are_one_engine(rows):
    ours = [row for row in rows if not row.scenario.carried_below]
    assert [row.seen for row in ours if row.seen["ebpf"] != row.seen["xdp"]] == []


def test_the_document_is_what_the_run_saw(rows):
    assert DOCUMENT.read_text(encoding="utf-8") == document(rows), (
        f"if that is how it is to be, run: {COMMAND}"
    )


def test_no_question_is_asked_twice():
    questions = [one.question for one in SCENARIOS]
    assert len(questions) == len(set(questions))
