"""What docs/cli.md and docs/admin_api.md say of names and numbers is what the code has."""

import importlib.util
import re
from pathlib import Path

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from marchproxy_core import errors
from marchproxy_core.admin.schema import ANSWERS
from marchproxy_core.backends import CheckResult, HealthBoard
from marchproxy_core.cli import main
from marchproxy_core.metrics import exposition
from marchproxy_core.services import HealthCheck

DOCS = Path(__file__).parents[2] / "docs"
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")
API = (DOCS / "admin_api.md").read_text(encoding="utf-8")

_path = Path(__file__).parent / "admin" / "fake_engine.py"
_spec = importlib.util.spec_from_file_location("fake_engine_for_docs", _path)
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)


@pytest.mark.parametrize("name", ["ConfigError", "StartRefused", "ListenError", "AdminError"])
def test_exit_statuses(name):
    assert re.search(rf"^\| {getattr(errors, name).exit_status} \| .*\({name}\) \|$", CLI, re.MULTILINE)


def test_every_command_is_documented():
    assert set(re.findall(r"^\| `(\w+)[ `]", CLI, re.MULTILINE)) == set(main.commands)


def test_every_answer_is_documented():
    rows = re.findall(r"^\| `((?:GET|POST) [^`]+)` \|.*\| ([0-9, ]+) \|$", API, re.MULTILINE)
    documented = {(endpoint, status) for endpoint, statuses in rows for status in statuses.split(", ")}
    assert {
        (endpoint, status) for endpoint, by_status in ANSWERS.items() for status in by_status
    } <= documented


def test_metrics_and_their_labels_are_documented():
    documented = {
        name: set(filter(None, labels.split(", ")))
        for name, labels in re.findall(r"^\| `(marchproxy_\w+)` \| ?([a-z, ]*) ?\|", API, re.MULTILINE)
    }
    documented = {name: {label.strip() for label in labels} - {""} for name, labels in documented.items()}
    engine = fake.make_engine()
    engine.counters |= fake.SOME_REQUESTS
    checked = attrs.evolve(fake.WEB, health_check=HealthCheck())
    engine.board = HealthBoard((checked,), now=0.0)
    engine.board.record_check(
        "web", checked.backends[0].endpoint, CheckResult(ok=True, latency_s=0.1), now=1.0
    )
    text = exposition(engine).render("")[0].decode()
    real = {
        family.name if family.type == "histogram" else sample.name: set(sample.labels) - {"le"}
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("marchproxy_")
    }
    assert real == documented
