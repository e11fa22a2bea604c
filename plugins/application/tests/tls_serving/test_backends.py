"""Backends that speak TLS: who they have to be, what becomes of those that are not, whose connections are shared."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, BackendTls, Endpoint, Http, ProxyHeader, ProxyProtocol
from marchproxy_core.testing import until
from marchproxy_core.testing.servers import receive_exactly
from plugins.application.tests.http_rig import GET, Peer, answering

BODY = os.urandom(3 << 20)


def asking(host):
    return b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host


def wishes(workshop, **options):
    return Http(backend_tls=BackendTls(**{"ca": workshop.authorities(), **options}))


async def test_a_backend_is_verified_and_its_connection_kept(serving, workshop, tls_origin):
    context = workshop.server(workshop.issue("b.test"))
    async with (
        tls_origin(context) as (backend, names),
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        peer = await site.client()
        assert [(await peer.ask(asking(host))).body for host in (b"a", b"b", b"a")] == [b"ok"] * 3
    assert (backend.connections, names) == (1, ["b.test"])


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_large_bodies_go_both_ways(serving, workshop, tls_origin, version):
    def echo(request):
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body

    context = workshop.server(workshop.issue("b.test"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    async with (
        tls_origin(context, answering(echo)) as (backend, _),
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        peer = await site.client()
        head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        for _ in range(2):
            assert (await peer.ask(head + BODY)).body == BODY


@pytest.mark.parametrize("what", ["name", "authority"])
async def test_a_backend_that_proves_to_be_another_is_502(serving, workshop, stranger, tls_origin, what):
    issuer = stranger if what == "authority" else workshop
    context = workshop.server(issuer.issue("b.test" if what == "authority" else "other.test"))
    async with (
        tls_origin(context) as (backend, _),
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        peer = await site.client()
        assert (await peer.ask()).status == 502
        await site.counts("drops.backend_tls_failed", 1)
        assert backend.requests == []
        assert "certificate refused" in site.running.observed[0].error


async def test_nobody_is_verified_where_that_is_said(serving, stranger, tls_origin):
    context = stranger.server(stranger.issue("other.test"))
    async with (
        tls_origin(context) as (backend, _),
        serving(backend, http=Http(backend_tls=BackendTls(verify=False))) as site,
    ):
        assert (await (await site.client()).ask()).body == b"ok"


async def test_the_name_is_the_hosts_and_connections_of_one_serve_no_other(serving, workshop, tls_origin):
    context = workshop.server(workshop.issue("a.test", "b.test"))
    async with tls_origin(context) as (backend, names), serving(backend, http=wishes(workshop)) as site:
        peer = await site.client()
        hosts = (b"a.test", b"b.test:8443", b"a.test", b"b.test", b"evil.test")
        assert [(await peer.ask(asking(host))).status for host in hosts] == [200, 200, 200, 200, 502]
        # The client chose the name: the backend is none the worse for it.
        assert site.running.observed == []
    assert names == ["a.test", "b.test", "evil.test"]
    assert backend.connections == 3


async def test_a_host_that_can_be_no_name_is_502(serving, workshop, tls_origin):
    context = workshop.server(workshop.issue("a.test"))
    async with tls_origin(context) as (backend, _), serving(backend, http=wishes(workshop)) as site:
        peer = await site.client()
        assert (await peer.ask(asking(b"x" * 70 + b".test"))).status == 502
        assert (await peer.ask(asking(b"a.test"))).body == b"ok"
        assert site.running.observed == []


async def test_a_backend_gets_our_certificate(serving, workshop, tls_origin):
    context = workshop.server(workshop.issue("b.test"), asks=True)
    ours = workshop.issue("proxy.test", file="proxy")
    proof = {"certificate": ours.certificate, "key": ours.key}
    async with (
        tls_origin(context) as (backend, _),
        serving(backend, http=wishes(workshop, name="b.test", **proof)) as site,
    ):
        assert (await (await site.client()).ask()).body == b"ok"


@asynccontextmanager
async def refusing(context):
    """Run a backend whose handshakes fail, and which says why: trio's streams keep their alerts to themselves."""

    def refuse(listening):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listening.accept()
                with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as tls:
                    with contextlib.suppress(ssl.SSLError):
                        tls.do_handshake()
                    with contextlib.suppress(ConnectionError):  # the proxy may have reset it by now
                        socket.socket.shutdown(tls, socket.SHUT_WR)
                        while socket.socket.recv(tls, 1 << 16):
                            pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, refuse, listening)
            try:
                yield Backend(endpoint=Endpoint.parse(f"127.0.0.1:{listening.getsockname()[1]}"))
            finally:
                listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_a_backend_that_wants_a_certificate_of_us_is_502(serving, workshop, version):
    context = workshop.server(workshop.issue("b.test"), asks=True)
    context.maximum_version = ssl.TLSVersion[version]
    async with (
        refusing(context) as backend,
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        assert (await (await site.client()).ask()).status == 502
        await site.counts("drops.backend_tls_failed", 1)
        assert "alert" in site.running.observed[0].error


async def test_authorities_are_read_again_when_they_change(serving, workshop, stranger, tls_origin):
    context = workshop.server(workshop.issue("b.test"))
    path = stranger.authorities()
    async with (
        tls_origin(context) as (backend, _),
        serving(backend, http=Http(backend_tls=BackendTls(ca=path, name="b.test"))) as site,
    ):
        peer = await site.client()
        assert (await peer.ask()).status == 502
        workshop.ca.cert_pem.write_to_path(path)

        async def is_believed():
            return (await peer.ask()).status == 200

        await until(is_believed)


async def test_files_that_cannot_be_used_are_502(serving, workshop, tls_origin):
    context = workshop.server(workshop.issue("b.test"))
    missing = str(workshop.folder / "missing.pem")
    async with (
        tls_origin(context) as (backend, _),
        serving(backend, http=wishes(workshop, ca=missing, name="b.test")) as site,
    ):
        assert (await (await site.client()).ask()).status == 502
        await site.counts("drops.backend_tls_failed", 1)
        assert backend.connections == 0


async def test_a_handshake_may_not_take_for_ever(serving, workshop, origin):
    async def say_nothing(peer, requests):
        del requests
        while await peer.more():
            pass

    settings = Settings(worker_threads=1, connect_timeout=0.5)
    async with (
        origin(say_nothing) as backend,
        serving(backend, http=wishes(workshop, name="b.test"), settings=settings) as site,
    ):
        assert (await (await site.client()).ask()).status == 504
        await site.counts("drops.backend_timeout", 1)


async def test_an_answer_that_is_cut_is_no_whole_one(serving, workshop, tls_origin):
    async def serve(peer, requests):
        requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
        await peer.stream.transport_stream.aclose()  # with no close_notify

    async def serve_well(peer, requests):
        requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole")
        await peer.stream.aclose()

    context = workshop.server(workshop.issue("b.test"))
    asked = b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n"
    async with (
        tls_origin(context, serve) as (backend, _),
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        peer = await site.client()
        with pytest.raises(trio.BrokenResourceError):
            await peer.ask(asked)
    async with (
        tls_origin(context, serve_well) as (backend, _),
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        assert (await (await site.client()).ask(asked)).body == b"whole"


async def test_sessions_are_resumed(serving, workshop, tls_origin):
    reused = []

    async def serve(peer, requests):
        requests.append(await peer.request())
        reused.append(peer.stream._ssl_object.session_reused)
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    context = workshop.server(workshop.issue("b.test"))
    async with (
        tls_origin(context, serve) as (backend, _),
        serving(backend, http=wishes(workshop, name="b.test")) as site,
    ):
        peer = await site.client()
        assert [(await peer.ask()).body for _ in range(2)] == [b"ok"] * 2
    assert reused == [False, True]


async def test_a_proxy_header_goes_ahead_of_tls(serving, workshop, origin):
    context = workshop.server(workshop.issue("b.test"))
    seen = []

    async def serve(peer, requests):
        seen.append(await receive_exactly(peer.stream, 28))
        tls = trio.SSLStream(peer.stream, context, server_side=True)
        await answering()(Peer(tls), requests)

    async with (
        origin(serve) as backend,
        serving(
            backend,
            http=wishes(workshop, name="b.test"),
            proxy_protocol=ProxyProtocol(send=ProxyHeader.V2),
        ) as site,
    ):
        assert (await (await site.client()).ask(GET)).body == b"ok"
    assert seen[0].startswith(b"\r\n\r\n\0\r\nQUIT\n")
