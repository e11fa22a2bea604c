"""What the tests of the packet engine share: the builds of it."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest

from marchproxy_core.errors import TierUnavailable
from marchproxy_core.packet.plain import build
from marchproxy_core.testing.lab import LabUnavailable
from marchproxy_core.testing.packets.ground import open_ground
from marchproxy_core.testing.packets.kernel_engine import KernelTableEngine
from marchproxy_core.testing.packets.plain_engine import PlainTableEngine
from marchproxy_core.testing.packets.row import PLAIN
from marchproxy_core.testing.pytest_plugin import leave_out


@pytest.fixture(scope="session")
def compiler():
    if shutil.which("cc") is None:
        leave_out("needs a C compiler: apt install gcc libc6-dev")
    return "cc"


@pytest.fixture(scope="session")
def plain_library(compiler, tmp_path_factory):
    return build(tmp_path_factory.mktemp("engine") / "plain.so")


@pytest.fixture(scope="session")
def _engines():
    with contextlib.ExitStack() as stack:
        yield {}, stack


@pytest.fixture
def engine_of(_engines, request):
    """Return a build of the engine by its kind; one of each is made in a session, when it is first asked for."""
    made, stack = _engines

    def ground():
        if "ground" not in made:
            try:
                made["ground"] = stack.enter_context(open_ground())
            except LabUnavailable as missing:
                leave_out(str(missing))
        return made["ground"]

    def make(kind):
        if kind in PLAIN:
            return PlainTableEngine(request.getfixturevalue("plain_library"), kind)
        if os.geteuid() != 0:
            leave_out("needs root: to load programs into the kernel")
        try:
            return KernelTableEngine(ground(), kind)
        except TierUnavailable as missing:
            leave_out(str(missing))

    def engine_of(kind):
        if kind not in made:
            made[kind] = stack.enter_context(contextlib.closing(make(kind)))
        return made[kind]

    return engine_of
