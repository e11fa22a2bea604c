"""The conformance kit as pytest sees it: one class, two fixtures.

::

    from marchproxy_core.testing import TierConformance
    from my_tier import plugin

    class TestConformance(TierConformance):
        @pytest.fixture
        def tier(self):
            return plugin
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from marchproxy_core.testing.laws import LAWS, Law, obey
from marchproxy_core.testing.pytest_plugin import leave_out
from marchproxy_core.testing.subject import CannotRun, NotApplicable
from marchproxy_core.testing.wire import Wire, open_loopback_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class TierConformance:
    """Every law, as one test each; subclass it and override ``tier``, and ``wire`` where loopback will not do."""

    @pytest.fixture
    def tier(self) -> object:
        """Return your plugin: the module that your entry point names."""
        raise NotImplementedError("override the fixture `tier`: return your plugin module")

    @pytest.fixture
    async def wire(self) -> AsyncIterator[Wire]:
        """Return where traffic runs; the loopback interface unless overridden."""
        async with open_loopback_wire() as wire:
            yield wire

    @pytest.mark.trio
    @pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
    async def test_law(self, law: Law, tier: object, wire: Wire) -> None:
        """Hold the tier to one law; skipped, with the tier's own reason, where it declined what the law is about."""
        try:
            await obey(law, tier, wire)
        except CannotRun as reason:
            leave_out(str(reason))
        except NotApplicable as reason:
            pytest.skip(str(reason))
