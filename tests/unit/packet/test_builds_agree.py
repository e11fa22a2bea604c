"""The builds of the engine agree, bit for bit, about whatever comes in."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marchproxy_core.testing.packets.agreeing import GROUPS, Agreement, run_cut
from marchproxy_core.testing.packets.frames import FLOWS
from marchproxy_core.testing.packets.table import SUBJECTS, rows_of
from marchproxy_core.testing.packets.world import changed
from tests.unit.packet.made_frames import frames

pytestmark = pytest.mark.root

# The only port is the one that clients have: whatever else would be drawn by chance, and not alike.
ONE_PORT = changed(first_port=40001, last_port=40001)
WORLDS = {
    "one port": ONE_PORT,
    "strict": changed(ONE_PORT, doors=4),
    "two flows": attrs.evolve(ONE_PORT, flows=2),
    "one connection": changed(ONE_PORT, max_active=1),
    "one unanswered": changed(ONE_PORT, max_opening=1),
}
FEW_EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _engines(engine_of, group):
    return [engine_of(build) for build in group]


@pytest.mark.parametrize(
    ("group", "world"),
    [(GROUPS[0], world) for world in WORLDS] + [(GROUPS[1], "one port")],
    ids=[*WORLDS, "partial checksums"],
)
@FEW_EXAMPLES
@given(
    open_flows=st.lists(st.sampled_from(FLOWS), unique=True),
    sequence=st.lists(frames(), min_size=1, max_size=8),
)
def test_about_frames_of_all_sorts(engine_of, group, world, open_flows, sequence):
    agreement = Agreement(_engines(engine_of, group), WORLDS[world])
    for flow in open_flows:
        for step in flow.opening():
            agreement.run(step.frame)
    for frame in sequence:
        agreement.run(frame)
    agreement.check("after all of them")


@pytest.fixture(scope="module")
def cut_already():
    """Frames that were cut at every length before, and need not be again."""
    return set()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_about_every_frame_of_the_table_cut_short(engine_of, cut_already, subject):
    for row in rows_of(subject):
        for group in GROUPS:
            # Ports that are drawn by chance are not alike.
            if any(len(step.outs) > 1 for step in row.steps):
                continue
            engines = [engine_of(build) for build in group if row.fits(build)]
            if len(engines) > 1:
                run_cut(row, engines, cut_already)
