"""The kit passes tiers that keep the laws; tests/unit/testing/test_laws.py shows that it catches those that do not."""

from __future__ import annotations

import pytest

from marchproxy_core.testing import FakeTier, FakeWorkerTier, FaultyTier, TierConformance, open_lab_wire


class TestFakeTier(TierConformance):
    @pytest.fixture
    def tier(self):
        return FakeTier()


class TestHealthyRig(TierConformance):
    @pytest.fixture
    def tier(self, tmp_path):
        return FaultyTier(directory=tmp_path)


class TestTierWithWorkerProcesses(TierConformance):
    @pytest.fixture
    def tier(self):
        return FakeWorkerTier()


@pytest.mark.root
class TestFakeTierInTheLab(TierConformance):
    @pytest.fixture
    def tier(self):
        return FakeTier()

    @pytest.fixture
    async def wire(self, lab):
        async with open_lab_wire(lab) as wire:
            yield wire
