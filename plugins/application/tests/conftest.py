"""The tier at work for one HTTP service, with real worker processes, and certificates, for the tests below."""

from __future__ import annotations

import pytest
import trustme

from plugins.application.tests import http_rig
from plugins.application.tests.workshop import Workshop


@pytest.fixture
def serving():
    """Return what runs the tier: see :func:`http_rig.serving`."""
    return http_rig.serving


@pytest.fixture
def origin():
    """Return what runs a backend: see :func:`http_rig.origin`."""
    return http_rig.origin


@pytest.fixture
def log_events(capfd, monkeypatch):
    """Return a function that tells the events of a name that were logged; workers write JSON."""
    monkeypatch.setenv("MARCHPROXY_LOG_FORMAT", "json")
    written = []

    def told(name):
        written.append(capfd.readouterr().err)
        return http_rig.events("".join(written), name)

    return told


@pytest.fixture(scope="session")
def _authority():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def workshop(tmp_path, _authority):
    return Workshop(tmp_path, _authority)
