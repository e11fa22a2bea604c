"""The site of each system test: see ``rig/__init__.py``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import trio

# By hand, since tests are no packages: the rig's modules import each other.
_spec = importlib.util.spec_from_file_location("system_rig", Path(__file__).parent / "rig" / "__init__.py")
_rig = importlib.util.module_from_spec(_spec)
sys.modules["system_rig"] = _rig
_spec.loader.exec_module(_rig)


@pytest.fixture
async def site(tmp_path):
    """Daemons, backends and clients of one test; at its end nothing of a daemon may be left."""
    async with trio.open_nursery() as nursery:
        site = _rig.Site(directory=tmp_path, nursery=nursery)
        try:
            yield site
        finally:
            with trio.CancelScope(shield=True):
                await site.end()
            nursery.cancel_scope.cancel()


@pytest.fixture
async def packets(tmp_path, lab):
    """A site between network namespaces, in which packet tiers have something to carry."""
    async with trio.open_nursery() as nursery:
        site = _rig.PacketSite(directory=tmp_path, nursery=nursery, lab=lab)
        try:
            yield site
        finally:
            with trio.CancelScope(shield=True):
                await site.end()
            nursery.cancel_scope.cancel()


@pytest.fixture(scope="session")
def processes():
    """What /proc shows of a process."""
    return _rig.processes
