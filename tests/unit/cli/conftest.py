"""Commands run in this process or in one of their own, and a daemon's admin API to ask."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pluggy
import pytest
import structlog
import trio
from click.testing import CliRunner

from marchproxy_core import hookspecs
from marchproxy_core.cli import main
from marchproxy_core.config import SETTINGS

_path = Path(__file__).parents[1] / "admin" / "fake_engine.py"
_spec = importlib.util.spec_from_file_location("fake_engine_for_cli", _path)
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

PROGRAM = [sys.executable, "-c", "from marchproxy_core.cli import main; main(prog_name='marchproxy')"]
hookimpl = pluggy.HookimplMarker(hookspecs.PROJECT)


class OnlyExplained:
    """The hooks that no command that explains may call."""

    @hookimpl
    def attach(self, context):
        raise AssertionError("nothing is attached to explain")

    @hookimpl
    def forward(self, attachment, services):
        raise AssertionError("nothing is forwarded to explain")

    @hookimpl
    def stats(self, attachment):
        raise AssertionError("nothing is counted to explain")


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch):
    for name in list(os.environ):
        if name in SETTINGS or name.startswith("ENABLE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def invoke():
    """Run a command in this process."""
    return lambda *arguments, **more: CliRunner().invoke(main, [str(one) for one in arguments], **more)


@pytest.fixture
def program():
    return PROGRAM


@pytest.fixture
def start():
    """Run a command in a process of its own, to its end."""

    def run(*arguments, environ=None, **more):
        return subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            env={**os.environ, **(environ or {})},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            **more,
        )

    return run


@pytest.fixture
def make_engine():
    return fake.make_engine


@pytest.fixture
def serving():
    return fake.serving


@pytest.fixture
async def engine():
    """A daemon's admin API, with its address in ``engine.address``."""
    engine = fake.make_engine()
    with structlog.testing.capture_logs():
        async with fake.serving(engine) as client:
            engine.address = f"{client.base_url.host}:{client.base_url.port}"
            yield engine


@pytest.fixture
def ask(invoke):
    """Run a command in a thread, beside the admin API that it asks."""

    async def ask(*arguments, **more):
        with structlog.testing.capture_logs():
            return await trio.to_thread.run_sync(lambda: invoke(*arguments, **more))

    return ask


@pytest.fixture
def socket_path(tmp_path):
    path = tmp_path / "admin.sock"
    assert len(str(path)) <= 107, "the temporary directory's name is too long for a unix socket"
    return path


@pytest.fixture
def only_explained():
    """Return what makes a tier of a class that probes and classifies: it fails when more is asked of it."""
    return lambda tier: type(tier.__name__, (tier, OnlyExplained), {})()
