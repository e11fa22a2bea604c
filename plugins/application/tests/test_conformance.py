"""The application tier keeps the laws that every tier keeps, with plain services and real worker processes."""

from __future__ import annotations

import pytest

from marchproxy_application import plugin
from marchproxy_core.testing import TierConformance, open_lab_wire


class TestConformance(TierConformance):
    @pytest.fixture
    def tier(self):
        return plugin


@pytest.mark.root
class TestConformanceInTheLab(TierConformance):
    """The same between network namespaces, over veth."""

    @pytest.fixture
    def tier(self):
        return plugin

    @pytest.fixture
    async def wire(self, lab):
        async with open_lab_wire(lab) as wire:
            yield wire
