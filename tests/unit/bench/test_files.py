"""What a run leaves behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import bench
from bench import files
from bench.files import Occasion

OCCASION = Occasion(
    rounds=5,
    seconds=0.5,
    taken=datetime(2026, 1, 2, tzinfo=UTC),
    host={"cpu": "2 x CPU", "kernel": "6.18"},
)


def test_json_page_and_plot_lie_side_by_side_without_the_place_of_the_checkout(tmp_path):
    root = str(Path(bench.__file__).parents[1])
    value = {**OCCASION.as_json(), "argv": f"{root}/.venv/bin/marchproxy"}

    paths = files.write(tmp_path / "new", "run", json_=value, md=f"at {root}", svg="<svg/>")

    assert [path.name for path in paths] == ["run.json", "run.md", "run.svg"]
    assert json.loads(paths[0].read_text()) == {
        "taken": "2026-01-02T00:00:00+00:00",
        "rounds": 5,
        "seconds": 0.5,
        "host": {"cpu": "2 x CPU", "kernel": "6.18"},
        "argv": "./.venv/bin/marchproxy",
    }
    assert [path.read_text() for path in paths[1:]] == ["at .", "<svg/>"]


def test_a_page_says_which_run_it_is_before_its_tables():
    page = files.page("A run", OCCASION, ["nobody was left out"], "| a |")

    assert page.splitlines() == [
        "# A run",
        "",
        "2026-01-02, 5 rounds of 0.5 s, 2 x CPU, Linux 6.18. "
        "Written by `make bench`; how to read it: [README](../README.md).",
        "",
        "- nobody was left out",
        "",
        "| a |",
    ]


def test_the_host_is_described_by_what_figures_depend_on():
    host = files.describe_host()

    assert host.keys() == {"kernel", "cpu", "open_files", "python", "commit"}
    assert all(host.values())
