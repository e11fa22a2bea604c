"""What the tests of the packet engine share: the builds of it."""

from __future__ import annotations

import shutil

import pytest

from marchproxy_core.packet.plain import build
from marchproxy_core.testing.packets.plain_engine import PlainTableEngine
from marchproxy_core.testing.pytest_plugin import leave_out


@pytest.fixture(scope="session")
def plain_library(tmp_path_factory):
    if shutil.which("cc") is None:
        leave_out("needs a C compiler: apt install gcc libc6-dev")
    return build(tmp_path_factory.mktemp("engine") / "plain.so")


@pytest.fixture(scope="session")
def engine_of(plain_library):
    """Return a build of the engine; one of each is made in a session."""
    engines = {}

    def engine_of(kind):
        if kind not in engines:
            engines[kind] = PlainTableEngine(plain_library, kind)
        return engines[kind]

    yield engine_of
    for engine in engines.values():
        engine.close()
