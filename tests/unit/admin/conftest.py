"""An engine to ask, and clients for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("fake_engine", Path(__file__).with_name("fake_engine.py"))
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)


@pytest.fixture
def make_engine():
    return fake.make_engine


@pytest.fixture
def serving():
    return fake.serving


@pytest.fixture
def engine():
    return fake.make_engine()


@pytest.fixture
def some_requests():
    return fake.SOME_REQUESTS


@pytest.fixture
async def client(engine):
    async with fake.serving(engine) as one:
        yield one


@pytest.fixture
def socket_path(tmp_path):
    path = tmp_path / "admin.sock"
    assert len(str(path)) <= 107, "the temporary directory's name is too long for a unix socket"
    return path
