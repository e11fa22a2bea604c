"""This tier keeps the laws of every tier."""

from __future__ import annotations

import pytest

from marchproxy_core.testing import TierConformance
from my_tier import plugin


class TestConformance(TierConformance):
    @pytest.fixture
    def tier(self) -> object:
        return plugin
