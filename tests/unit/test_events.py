"""Every event in the code is named as events are named, and is in docs/events.md with its keys, and back."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEVELS = ("debug", "info", "warning", "error", "critical", "exception")
NAME = re.compile(r"[a-z]+(?:_[a-z]+)*\.([a-z]+(?:_[a-z]+)*)")
IRREGULAR = {
    "began",
    "broke",
    "came",
    "cut",
    "fell",
    "found",
    "gave",
    "held",
    "hung",
    "kept",
    "left",
    "lost",
    "made",
    "ran",
}
IRREGULAR |= {"overran", "ran", "sent", "shut", "stuck", "taken", "took", "went", "withdrawn"}
ALWAYS = {"event", "level", "timestamp", "process", "exception", "stack"}
HIDDEN = {"exc_info", "stack_info"}


def sources():
    for part in ("marchproxy_core", "plugins"):
        for path in sorted((ROOT / part).rglob("*.py")):
            inside = path.relative_to(ROOT).parts
            if "tests" not in inside and "build" not in inside:
                yield path


def is_logger(node):
    """Whether an expression is a logger, by the names that we give loggers."""
    text = ast.unparse(node)
    return text.split(".")[-1].strip("_") in ("log", "logger") or text.endswith("get_logger()")


def aliases(tree):
    """Names that stand for a method of a logger, as ``say = log.info if … else log.error``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values = (
                [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
            )
            if all(isinstance(v, ast.Attribute) and v.attr in LEVELS and is_logger(v.value) for v in values):
                found.add(node.targets[0].id)
    return found


def log_calls(tree):
    names = aliases(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if (isinstance(called, ast.Attribute) and called.attr in LEVELS and is_logger(called.value)) or (
            isinstance(called, ast.Name) and called.id in names
        ):
            yield node


@functools.cache
def events_in_code():
    events = {}
    for path in sources():
        for call in log_calls(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            literal = call.args[0] if call.args else None
            named = isinstance(literal, ast.Constant) and isinstance(literal.value, str)
            keys = {keyword.arg for keyword in call.keywords if keyword.arg} - HIDDEN
            open_ended = any(keyword.arg is None for keyword in call.keywords)
            events.setdefault(literal.value if named else None, []).append((where, keys, open_ended))
    return events


@functools.cache
def documented():
    text = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| [a-z, ]+ \|([^|]*)\|", text, re.MULTILINE)
    return {event: set(re.findall(r"`([a-z_]+)`", keys)) for event, keys in rows}


def test_the_walk_finds_events():
    assert len(events_in_code()) > 10
    assert "admin.started" in events_in_code()


def test_every_event_is_a_literal():
    assert events_in_code().get(None, []) == []


@pytest.mark.parametrize("event", sorted(filter(None, events_in_code())))
def test_name_is_noun_and_verb_in_the_past(event):
    match = NAME.fullmatch(event)
    assert match, f"{event}: want noun.verb_past"
    words = match[1].split("_")
    assert any(word.endswith("ed") or word in IRREGULAR for word in words), f"{event}: no verb in the past"


def test_documented_and_used_are_the_same():
    used, known = set(filter(None, events_in_code())), set(documented())
    assert used - known == set(), "events that docs/events.md does not list"
    assert known - used == set(), "events in docs/events.md that nothing logs"


@pytest.mark.parametrize("event", sorted(filter(None, events_in_code())))
def test_keys_are_documented(event):
    known = documented().get(event, set())
    for where, keys, open_ended in events_in_code()[event]:
        assert keys - known == set(), f"{where}: keys of {event} that docs/events.md does not list"
        assert not keys & ALWAYS, f"{where}: a key that every line has already"
        assert not open_ended or known, f"{where}: keys of {event} are not documented"
