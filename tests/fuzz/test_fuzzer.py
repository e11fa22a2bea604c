"""A short run of the fuzzer finds nothing, and what it is there to find it would find."""

from __future__ import annotations

import shutil

import pytest

from marchproxy_core.packet.layout import SOURCES
from marchproxy_core.testing.packets.table import rows
from marchproxy_core.testing.pytest_plugin import leave_out
from tests.fuzz.fuzzing import CORPUS, build_fuzzer, fuzz, inputs_of, write_tables

SECONDS = 3
PLANTED = {
    "a read behind the frame": (
        "parse.h",
        "(size) <= (frame)->end",
        "(size) <= (frame)->end + 1",
        "heap-buffer-overflow",
    ),
    "a port that no checksum covers": (
        "rewrite.h",
        "addresses, port_sum); /*",
        "addresses, port_sum * 0); /*",
        "a checksum that was right is wrong",
    ),
    "a place that is not given back": (
        "flows.h",
        "    mp_return_flow(ref.flow);",
        "",
        "a place for a flow is lost",
    ),
    "a packet that is changed and passed on": (
        "engine.h",
        "    if (decision->verdict != MP_FORWARD ||",
        "    mp_address_frame(frame, &decision->hop);\n    if (decision->verdict != MP_FORWARD ||",
        "was changed",
    ),
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    if shutil.which("cc") is None:
        leave_out("needs a C compiler: apt install gcc libc6-dev")
    return write_tables(tmp_path_factory.mktemp("fuzz") / "tables")


def test_a_short_run_finds_nothing(tables, tmp_path):
    fuzzer = build_fuzzer(tmp_path / "fuzz")
    finding = tmp_path / "finding"
    run = fuzz(fuzzer, tables, seconds=SECONDS, seed=1, finding=finding, files=sorted(CORPUS.iterdir()))
    assert run.returncode == 0, run.stderr
    assert not finding.exists()
    assert int(run.stdout.split()[0]) > 0


@pytest.mark.parametrize("defect", PLANTED)
def test_a_planted_defect_is_found(tables, tmp_path, defect):
    name, right, wrong, said = PLANTED[defect]
    sources = shutil.copytree(SOURCES, tmp_path / "c")
    text = (sources / name).read_text(encoding="ascii")
    assert text.count(right) == 1
    (sources / name).write_text(text.replace(right, wrong), encoding="ascii")
    fuzzer = build_fuzzer(tmp_path / "fuzz", sources)
    finding = tmp_path / "finding"
    run = fuzz(fuzzer, tables, seconds=2, seed=1, finding=finding, files=sorted(CORPUS.iterdir()))
    assert run.returncode != 0
    assert said in run.stderr
    again = fuzz(fuzzer, tables, seconds=0, seed=1, finding=tmp_path / "again", files=[finding])
    assert said in again.stderr


def test_the_corpus_is_of_the_table():
    known = {inputs_of(row) for row in rows()}
    stale = [path.name for path in sorted(CORPUS.glob("row-*")) if path.read_bytes() not in known]
    assert not stale, "the packet table has changed - fix: scripts/fuzz corpus"
