"""Backends that speak HTTP/2, for the tests beside it."""

from __future__ import annotations

import pytest

from plugins.application.tests.http2_backends import rig


@pytest.fixture
def http2_origin():
    """Return what runs a backend made of h2: see :func:`rig.http2_origin`."""
    return rig.http2_origin


@pytest.fixture
def raw_origin():
    """Return what runs a backend whose frames are made by hand: see :func:`rig.raw_origin`."""
    return rig.raw_origin
