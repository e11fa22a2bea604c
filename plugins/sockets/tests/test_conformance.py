"""The sockets tier keeps the laws that every tier keeps, with real worker processes."""

from __future__ import annotations

import pytest

from marchproxy_core.testing import TierConformance
from marchproxy_sockets import plugin


class TestConformance(TierConformance):
    @pytest.fixture
    def tier(self):
        return plugin
