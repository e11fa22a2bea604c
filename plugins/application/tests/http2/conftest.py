"""The tier at work for one HTTP service, and programs from Debian that speak to it."""

from __future__ import annotations

import shutil

import pytest

from marchproxy_core.testing.pytest_plugin import leave_out
from plugins.application.tests.http2.rig import serving


@pytest.fixture(name="serving")
def serving_fixture():
    return serving


@pytest.fixture
def program():
    """Return a function that finds a program, or leaves the test out by name."""

    def find(name, package):
        found = shutil.which(name)
        if found is None:
            leave_out(f"{name} is not installed: apt-get install {package}")
        return found

    return find
