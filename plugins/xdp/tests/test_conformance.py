"""The tier obeys every law of the conformance kit, between network namespaces."""

from __future__ import annotations

import pytest

from marchproxy_core.testing import TierConformance
from marchproxy_xdp import plugin


@pytest.mark.root
class TestInTheLab(TierConformance):
    @pytest.fixture
    def tier(self):
        return plugin

    @pytest.fixture
    async def wire(self, wire):
        return wire
