"""The rig, for the tests beside it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("rig", Path(__file__).with_name("rig.py"))
_rig = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_rig)


@pytest.fixture
def failing_tier():
    return _rig.FailingTier


@pytest.fixture
def echo_tier():
    return _rig.EchoTier
