"""Backends that speak TLS: who they have to be, what becomes of those that are not, and which connections are shared."""

from __future__ import annotations

import ssl

import attrs
import pytest

from marchproxy_core.services import BackendTls, Http
from plugins.application.tests.http_rig import GET, OK, answering


def asking(host):
    return b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host


def wishes(workshop, **options):
    return Http(backend_tls=BackendTls(ca=workshop.authorities(), **options))


async def test_a_backend_is_verified_and_its_connection_kept(serving, workshop, tls_origin):
    context = workshop.server(workshop.issue("b.test"))
    async with (
        tls_origin(context) as (backend, names),
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        peer = await site.client()
        assert [(await peer.ask(asking(host))).body for host in (b"a", b"b", b"a")] == [b"ok"] * 3
    assert (backend.connections, names) == (1, ["b.test"])


async def test_a_backend_with_another_name_is_502(serving, workshop, tls_origin):
    context = workshop.server(workshop.issue("other.test"))
    async with (
        tls_origin(context) as (backend, _),
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        peer = await site.client()
        assert (await peer.ask()).status == 502
        await site.counts("drops.backend_tls_failed", 1)
        assert backend.requests == []
        assert "certificate refused" in site.running.observed[0].error
