"""The rig, for the tests beside it."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest
import structlog

_spec = importlib.util.spec_from_file_location("rig", Path(__file__).with_name("rig.py"))
_rig = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_rig)


@pytest.fixture(autouse=True)
def logging_as_before():
    """A reload sets the level of the whole process; other tests are to find all of it as it was."""
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def failing_tier():
    return _rig.FailingTier


@pytest.fixture
def echo_tier():
    return _rig.EchoTier
