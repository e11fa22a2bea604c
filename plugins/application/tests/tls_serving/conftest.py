"""Clients and backends that speak TLS, around the tier in real worker processes."""

from __future__ import annotations

import contextlib
import shutil
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
import trustme

from marchproxy_application import plugin
from marchproxy_core.config import Settings
from marchproxy_core.services import Http, Tls
from marchproxy_core.testing import Subject, open_loopback_wire
from marchproxy_core.testing.laws.traffic import service_for
from marchproxy_core.testing.pytest_plugin import leave_out
from marchproxy_core.testing.servers import tcp_server
from plugins.application.tests.http_rig import LONGEST_S, Origin, Peer, Site, answering
from plugins.application.tests.workshop import Workshop


@pytest.fixture
def stranger(tmp_path_factory):
    """An authority that nobody trusts."""
    return Workshop(tmp_path_factory.mktemp("stranger"), trustme.CA())


@pytest.fixture
def tls_client():
    """Return what connects a client by TLS."""
    return connect


@asynccontextmanager
async def connect(site, context, name="a.test", *, service=None, before=b""):
    """Connect and shake hands; yields the peer, whose ``stream`` is a ``trio.SSLStream``.

    Args:
        site: Where to.
        context: The client's.
        name: Whom it asks for; None: nobody.
        service: Another one than the site's own.
        before: What is sent ahead of TLS.
    """
    raw = await site.wire.connect((service or site.service).listen[0])
    if name is None:
        context.check_hostname = False
    async with raw:
        if before:
            await raw.send_all(before)
        stream = trio.SSLStream(raw, context, server_hostname=name)
        with trio.fail_after(LONGEST_S):
            await stream.do_handshake()
        yield Peer(stream)


@pytest.fixture
def tls_origin():
    """Return what runs a backend that speaks TLS."""
    return origin


@asynccontextmanager
async def origin(context, serve=None):
    """Run a backend behind TLS; yields it, and what it was asked for by SNI."""
    serve = serve or answering()
    requests, names = [], []
    context.sni_callback = lambda connection, name, first: names.append(name)

    async def handle(raw):
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await serve(Peer(trio.SSLStream(raw, context, server_side=True)), requests)

    async with open_loopback_wire() as wire, tcp_server(wire, serve=handle) as server:
        yield Origin(server, requests), names


@pytest.fixture
def ended_here(workshop):
    """Return the attributes of a service whose TLS ends here."""

    def make(*names, http=None, file="cert", **tls):
        pair = workshop.issue(*(names or ("a.test",)), file=file)
        return {"http": http or Http(), "tls": Tls(certificates=(pair,), **tls)}

    return make


@pytest.fixture
def curl():
    """Return a function that runs curl; what it says, and its exit status."""
    found = shutil.which("curl")
    if found is None:
        leave_out("curl is not installed: apt-get install curl")

    async def run(*arguments):
        with trio.fail_after(LONGEST_S):
            done = await trio.run_process(
                [found, "--silent", "--show-error", *arguments],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return done

    return run


@pytest.fixture
def sharing():
    """Return what runs the tier for several services on one listener."""
    return share


@asynccontextmanager
async def share(*wanted, settings=None):
    """Run several services on one address; yields the site of the first one.

    Args:
        wanted: For each service its backend and its attributes.
        settings: All settings; one worker when None.
    """
    subject = await Subject.of(plugin, settings or Settings(worker_threads=1))
    async with open_loopback_wire() as wire:
        services = []
        for number, (backend, attributes) in enumerate(wanted):
            one = attrs.evolve(service_for(wire, backend.backend), name=f"web{number}", **attributes)
            services.append(attrs.evolve(one, listen=services[0].listen) if services else one)
        async with subject.running(*services) as running, AsyncExitStack() as stack:
            yield Site(running, services[0], wire, stack)
