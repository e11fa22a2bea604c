"""The tier at work for one service, with real worker processes, for the tests beside it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import attrs
import pytest

from marchproxy_core.config import Settings
from marchproxy_core.services import Protocol
from marchproxy_core.testing import Subject, open_loopback_wire
from marchproxy_core.testing.laws.traffic import service_for
from marchproxy_core.testing.servers import tcp_server
from marchproxy_sockets import plugin


@asynccontextmanager
async def relaying(*backends, settings=None, protocol=Protocol.TCP, version=4, **service):
    """Run the tier for one service; yields what runs, the service, and the wire.

    Args:
        backends: The service's backends.
        settings: All settings; one worker when None.
        protocol: The service's.
        version: IP version of the address that it listens on.
        service: More attributes of the service.
    """
    subject = await Subject.of(plugin, settings or Settings(worker_threads=1))
    async with open_loopback_wire() as wire:
        one = attrs.evolve(service_for(wire, *backends, protocol=protocol, version=version), **service)
        async with subject.running(one) as running:
            yield running, one, wire


@pytest.fixture(name="relaying")
def relaying_fixture():
    return relaying


@asynccontextmanager
async def relaying_to(*, name=b"a", serve=None, **options):
    """Run the tier for a TCP service with one server behind it; arguments as for the server, and as above."""
    async with (
        open_loopback_wire() as here,
        tcp_server(here, name=name, serve=serve) as server,
        relaying(server.backend, **options) as (running, service, wire),
    ):
        yield running, service, wire, server


@pytest.fixture(name="relaying_to")
def relaying_to_fixture():
    return relaying_to
