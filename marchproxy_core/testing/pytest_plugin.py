"""Rules and fixtures for tests of tiers: the ``root`` mark, and a laboratory of network namespaces.

Use it with ``pytest_plugins = ("marchproxy_core.testing.pytest_plugin",)`` in the topmost conftest.py.
A test that cannot run here is skipped by name; where the environment variable ``CI`` says that everything is
there, it fails instead.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import pytest

from marchproxy_core.testing.lab import Lab, LabUnavailable, open_lab

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, for those who use strict ones."""
    config.addinivalue_line(
        "markers", "root: needs root (namespaces, raw sockets); skipped without, fails where CI is set"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep a test marked ``root`` from running without root."""
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        leave_out(f"needs root: {item.name}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """Give a test that was skipped inside of trio its reason back.

    pytest-trio 0.8 catches the nursery's group and raises a skip of its own, without a reason (its plugin.py, 362).
    """
    skip = call.excinfo.value if call.excinfo else None
    if isinstance(skip, pytest.skip.Exception) and not skip.msg:
        reason = _reason_of_skip(skip.__context__)
        if reason:
            call.excinfo = pytest.CallInfo.from_call(lambda: pytest.skip(reason), call.when).excinfo


def _reason_of_skip(error: BaseException | None) -> str | None:
    if isinstance(error, BaseExceptionGroup):
        return next((reason for inner in error.exceptions if (reason := _reason_of_skip(inner))), None)
    return error.msg if isinstance(error, pytest.skip.Exception) else None


def leave_out(reason: str) -> NoReturn:
    """Skip the running test, or fail it where ``CI`` is set.

    Args:
        reason: What is missing on this host, and what would bring it.
    """
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"CI is set, so nothing may be left out: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    """Client, proxy and server in namespaces of their own; the test needs the mark ``root``."""
    try:
        opened = open_lab()
        running = await opened.__aenter__()
    except LabUnavailable as missing:
        leave_out(str(missing))
    try:
        yield running
    finally:
        await opened.__aexit__(None, None, None)
