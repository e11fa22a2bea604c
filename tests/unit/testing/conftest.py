"""Holding tiers that are wrong in one way to the law that they break."""

from __future__ import annotations

import pytest

from marchproxy_core.errors import TierFault
from marchproxy_core.testing import obey, open_loopback_wire
from marchproxy_core.testing.laws import ending, hooks, patience


def pytest_generate_tests(metafunc):
    """Give a test each row of its module's BROKEN: a law, who makes a tier that breaks it, what is said of that."""
    if {"law", "make", "said"} <= set(metafunc.fixturenames):
        rows = [
            pytest.param(law, make, said, id=f"{law.__name__}-{number}")
            for law, broken in metafunc.module.BROKEN.items()
            for number, (make, said) in enumerate(broken)
        ]
        metafunc.parametrize(("law", "make", "said"), rows)


@pytest.fixture
def assert_caught(monkeypatch):
    """Assert that the law does not pass the tier, and says what is wrong; little patience, since it is used up."""
    monkeypatch.setattr(patience, "PATIENCE_S", 1.0)
    for module in (hooks, ending):
        check = module.assert_nothing_leaked
        monkeypatch.setattr(
            module, "assert_nothing_leaked", lambda before, check=check: check(before, deadline_s=0.3)
        )

    async def assert_caught(law, tier, said):
        async with open_loopback_wire() as wire:
            with pytest.raises((AssertionError, TierFault, RuntimeError), match=said):
                await obey(law, tier, wire)

    return assert_caught
