"""HTTP/2 to backends over TLS: agreed on by ALPN, with a backend that has proved who it is."""

from __future__ import annotations

import ssl

import pytest
import trustme

from marchproxy_core.services import BackendTls, Retry
from plugins.application.tests.http2_backends.rig import http2

LARGE = bytes(range(256)) * 8192


@pytest.fixture(scope="module")
def authority():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def context_for(authority, name="b.test", *, alpn=("h2",)):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


@pytest.fixture
def wishes(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))

    def make(**options):
        return http2(backend_tls=BackendTls(ca=str(path), **options), retry=Retry(most=0))

    return make


async def test_requests_share_a_connection_to_a_verified_backend(serving, http2_origin, authority, wishes):
    context = context_for(authority)
    async with (
        http2_origin(context=context) as origin,
        serving(origin.backend, http=wishes(name="b.test")) as site,
    ):
        client = await site.client()
        for _ in range(3):
            assert (await client.ask()).status == 200
        assert len(origin.connections) == 1
        assert origin.requests[0].get(b":scheme") == b"https"
        assert origin.connections[0].stream.selected_alpn_protocol() == "h2"


async def test_large_bodies_pass_both_ways(serving, http2_origin, authority, wishes):
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(LARGE), LARGE)
    async with (
        http2_origin(context=context_for(authority)) as origin,
        serving(origin.backend, http=wishes(name="b.test")) as site,
    ):
        client = await site.client()
        for _ in range(2):
            assert (await client.ask(request)).body == LARGE


async def test_a_backend_with_another_name_is_refused(serving, http2_origin, authority, wishes):
    async with (
        http2_origin(context=context_for(authority, "other.test")) as origin,
        serving(origin.backend, http=wishes(name="b.test")) as site,
    ):
        client = await site.client()
        assert (await client.ask()).status == 502
        await site.counts("drops.backend_tls_failed", 1)
        assert not origin.requests


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
async def test_a_backend_that_agrees_on_no_http_2_is_refused(serving, http2_origin, authority, wishes, alpn):
    async with (
        http2_origin(context=context_for(authority, alpn=alpn)) as origin,
        serving(origin.backend, http=wishes(name="b.test")) as site,
    ):
        client = await site.client()
        assert (await client.ask()).status == 502
        await site.counts("drops.backend_tls_failed", 1)
        assert not origin.requests


async def test_a_connection_verified_for_one_host_serves_no_other(serving, http2_origin, authority, wishes):
    async with (
        http2_origin(context=context_for(authority, "*.b.test")) as origin,
        serving(origin.backend, http=wishes()) as site,
    ):
        client = await site.client()
        for host in (b"a.b.test", b"c.b.test", b"a.b.test"):
            assert (await client.ask(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)).status == 200
        assert len(origin.connections) == 2
