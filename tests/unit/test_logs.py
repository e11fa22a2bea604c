import io
import json
import logging
import os
import subprocess
import sys
import warnings

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core import logs
from marchproxy_core.logs import LogFormat


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch):
    monkeypatch.delenv(logs.FORMAT_VARIABLE, raising=False)
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    root.handlers[:] = handlers


def written(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_has_time_in_utc_level_event_and_process():
    stream = io.StringIO()
    logs.configure("sockets.0", stream=stream)
    structlog.get_logger().info("tier.attached", tier="sockets")
    (line,) = written(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "tier.attached", "level": "info", "process": "sockets.0", "tier": "sockets"}


def test_loggers_made_before_follow_a_new_level():
    log, stream = structlog.get_logger(), io.StringIO()
    logs.configure("control", level="WARNING", stream=stream)
    log.info("tier.attached")
    logs.configure("control", level="info", stream=stream)
    log.info("tier.attached")
    logs.configure("control", level="error", debug=True, stream=stream)
    log.debug("tier.attached")
    assert [line["level"] for line in written(stream)] == ["info", "debug"]


def test_a_new_level_leaves_process_format_and_stream_as_they_are():
    log, stream = structlog.get_logger(), io.StringIO()
    logs.configure("control", level="warning", stream=stream)
    logs.set_level("INFO")
    log.info("tier.attached")
    log.debug("tier.attached")
    logs.set_level("error", debug=True)
    log.debug("tier.attached")
    assert [(line["process"], line["level"]) for line in written(stream)] == [
        ("control", "info"),
        ("control", "debug"),
    ]
    with pytest.raises(ValueError, match="log level 'loud'"):
        logs.set_level("loud")


def test_unknown_level_and_format_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="want one of debug, info"):
        logs.configure("control", level="loud")
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "xml")
    with pytest.raises(ValueError, match="xml"):
        logs.configure("control")


@pytest.mark.parametrize(
    ("stream", "variable", "is_json"),
    [
        (io.StringIO(), None, True),
        (Terminal(), None, False),
        (Terminal(), "json", True),
        (io.StringIO(), "console", False),
    ],
)
def test_format_follows_the_stream_unless_told(monkeypatch, stream, variable, is_json):
    if variable:
        monkeypatch.setenv(logs.FORMAT_VARIABLE, variable)
    logs.configure("control", stream=stream)
    structlog.get_logger().info("tier.attached")
    assert stream.getvalue().startswith("{") is is_json


def unsafe(text):
    return [c for c in text if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2028"]


@pytest.mark.parametrize("log_format", list(LogFormat))
@given(
    text=st.text()
    | st.sampled_from(["\x1b[2J", "\x9b31m", "\x7f", "a\nb", "\u202etxt.exe", "\r\b", "\ud800"])
)
def test_text_of_others_never_reaches_the_terminal_raw(log_format, text):
    stream = io.StringIO()
    logs.configure("control", stream=stream, log_format=log_format)
    structlog.get_logger().info("backend.failed", error=text, several=[text], mapping={"key": text})
    assert not unsafe(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    stream.getvalue().encode()
    if log_format is LogFormat.JSON:
        assert written(stream)[0]["error"] == text


@given(st.text())
def test_escape_is_safe_to_print_and_leaves_plain_text_alone(text):
    assert not unsafe(logs.escape(text).replace("\n", ""))
    assert logs.escape(logs.escape(text)) == logs.escape(text)


def test_tracebacks_are_in_the_line():
    stream = io.StringIO()
    logs.configure("control", stream=stream)
    try:
        int("x")
    except ValueError:
        structlog.get_logger().exception("tier.failed")
    assert "ValueError" in written(stream)[0]["exception"]


def test_libraries_log_as_events_from_warning_on():
    stream = io.StringIO()
    logs.configure("control", stream=stream)
    logs.configure("control", stream=stream)
    library = logging.getLogger("trio.serve_listeners")
    library.info("not of use")
    library.error("accept failed: %s", "\x1b[1m")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    lines = written(stream)
    assert [(line["event"], line["level"]) for line in lines] == [
        ("library.message_logged", "error"),
        ("library.message_logged", "warning"),
    ]
    assert lines[0]["logger"] == "trio.serve_listeners"
    assert "old" in lines[1]["message"]


def test_log_that_nobody_takes_ends_nothing():
    logs.configure("control", stream=Broken())
    structlog.get_logger().error("tier.failed")


def test_a_line_is_one_write_so_that_processes_do_not_mix():
    program = (
        "import sys, structlog; from marchproxy_core import logs; logs.configure(sys.argv[1])\n"
        "for i in range(300): structlog.get_logger().info('tier.attached', number=i, filler='x' * 300)"
    )
    reading, writing = os.pipe()
    started = [subprocess.Popen([sys.executable, "-c", program, name], stderr=writing) for name in ("a", "b")]
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    assert [one.wait() for one in started] == [0, 0]
    assert sorted({json.loads(line)["process"] for line in lines}) == ["a", "b"]
    assert len(lines) == 600
