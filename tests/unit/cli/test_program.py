"""What only a process of its own can show: exit statuses, closed pipes, signals, completion."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest


def test_version(start):
    assert start("--version").stdout.startswith("marchproxy, version ")


def test_no_command_shows_all_of_them(start):
    result = start("--help")
    assert result.returncode == 0
    for command in ("run", "check", "explain", "status", "plugins", "reload", "drain", "logs"):
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["check", "--config", "/nonexistent.yaml"], 2),
        (["run", "--config", "/nonexistent.yaml"], 2),
        (["explain", "--config", "/nonexistent.yaml"], 2),
        (["frobnicate"], 2),
        (["logs", "--level", "loud"], 2),
        (["logs", "--since", "yesterday"], 2),
        (["logs", "/nonexistent.log"], 1),
        (["logs", "--follow", "/nonexistent.log"], 1),
        (["status", "--admin", "unix:/nonexistent.sock"], 5),
    ],
)
def test_exit_statuses_and_no_traceback(start, arguments, status):
    result = start(*arguments)
    assert result.returncode == status
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_traceback_only_where_asked_for(start):
    result = start("check", "--config", "/nonexistent.yaml", environ={"PROXY_DEBUG": "true"})
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


def many_lines(path):
    line = json.dumps({"event": "tier.attached", "level": "info", "filler": "x" * 200})
    path.write_text(f"{line}\n" * 5000)


@pytest.fixture
def spawn(program):
    """Start a command that the test talks to; it is killed after 20 s, so that no test can hang."""
    with ExitStack() as ending:

        def spawn(*arguments):
            pipe = subprocess.PIPE
            environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
            command = [*program, *map(str, arguments)]
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environ)
            ending.enter_context(process)
            timer = threading.Timer(20, process.kill)
            timer.start()
            ending.callback(timer.join)
            ending.callback(timer.cancel)
            return process

        yield spawn


@pytest.mark.parametrize("flags", [[], ["--json"], ["--follow"]])
def test_reader_that_has_enough_gets_no_traceback(spawn, tmp_path, flags):
    path = tmp_path / "a.log"
    many_lines(path)
    process = spawn("logs", *flags, path)
    assert b"tier.attached" in process.stdout.readline()
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait() == 1
    assert b"Traceback" not in stderr
    assert b"Exception ignored" not in stderr


def test_interrupted_follow_ends_quietly(spawn, tmp_path):
    path = tmp_path / "a.log"
    path.write_text('{"event": "tier.attached", "level": "info"}\n')
    process = spawn("logs", "--follow", path)
    assert b"tier.attached" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout, stderr) == (130, b"", b"")


def test_lines_of_a_slow_pipe_are_shown_as_they_come(spawn):
    process = spawn("logs")
    for number in range(3):
        process.stdin.write(json.dumps({"event": "tier.attached", "number": number}).encode() + b"\n")
        process.stdin.flush()
        assert f"number={number}".encode() in process.stdout.readline()
    process.stdin.close()
    assert process.wait() == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_of_each_shell(start, shell):
    result = start(environ={"_MARCHPROXY_COMPLETE": f"{shell}_source"})
    assert result.returncode == 0
    assert "_MARCHPROXY_COMPLETE" in result.stdout


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [
        ("marchproxy re", 1, ["plain,reload"]),
        ("marchproxy logs --le", 2, ["plain,--level"]),
        ("marchproxy logs --level w", 3, ["plain,warning"]),
    ],
)
def test_completion_answers(start, words, number, expected):
    environ = {"_MARCHPROXY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    assert start(environ=environ).stdout.splitlines() == expected


def test_commands_that_only_ask_do_not_load_the_engine():
    program = "import sys, marchproxy_core.cli; sys.exit('marchproxy_core.engine.engine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
