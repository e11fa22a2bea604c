"""Services that share a listener are told apart by the name that a client asks for: whose TLS ends here, whose not."""

from __future__ import annotations

import os
import ssl

import attrs
import pytest
import trio
import trio.lowlevel

from marchproxy_core.relay.proxy_header import encode_v2
from marchproxy_core.services import Http, ProxyHeader, ProxyProtocol, Tls
from plugins.application.tests.http_rig import GET, answering

BODY = os.urandom(2 << 20)


def saying(name):
    return answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))


def asking(host):
    return b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host


def passed(*hosts, **service):
    return {"tls": Tls(passthrough=True, hosts=hosts), **service}


def names_of(peer):
    return [name for _, name in peer.stream.getpeercert()["subjectAltName"]]


async def test_each_name_gets_its_certificate_and_each_host_its_service(
    sharing, origin, workshop, tls_client, ended_here
):
    async with (
        origin(saying(b"a")) as one,
        origin(saying(b"b")) as two,
        sharing(
            (one, ended_here("a.test", http=Http(hosts=("a.test",)), file="a")),
            (two, ended_here("*.b.test", http=Http(hosts=("*.b.test",)), file="b")),
        ) as site,
    ):
        async with tls_client(site, workshop.client(), "a.test") as peer:
            assert names_of(peer) == ["a.test"]
            assert (await peer.ask(asking(b"a.test"))).body == b"a"
            # Both ask the same of their clients, so that a connection for one may ask the other.
            assert (await peer.ask(asking(b"x.b.test"))).body == b"b"
            assert (await peer.ask(asking(b"c.test"))).status == 404
        async with tls_client(site, workshop.client(), "x.b.test") as peer:
            assert names_of(peer) == ["*.b.test"]
        context = workshop.client()
        async with tls_client(site, context, None) as peer:
            assert names_of(peer) == ["a.test"]


async def test_names_are_passed_through_to_their_backends(sharing, tls_origin, workshop, tls_client):
    one = workshop.server(workshop.issue("a.test", file="a"))
    two = workshop.server(workshop.issue("x.b.test", file="b"))
    async with (
        tls_origin(one, saying(b"a")) as (first, names),
        tls_origin(two, saying(b"b")) as (second, _),
        sharing((first, passed("a.test")), (second, passed("*.b.test"))) as site,
    ):
        for name, want in (("a.test", b"a"), ("x.b.test", b"b")):
            async with tls_client(site, workshop.client(), name) as peer:
                assert names_of(peer) == [name]
                assert (await peer.ask()).body == want
        assert names == ["a.test"]
        with pytest.raises(trio.BrokenResourceError) as raised:
            async with tls_client(site, workshop.client(), "c.test"):
                pass
        assert "unrecognized" in str(raised.value.__cause__).lower()
        await site.counts("connections_active", 0)
        assert [
            (await site.running.stats()).services[name].connections_opened for name in ("web0", "web1")
        ] == [3, 1]


async def test_large_bodies_are_passed_through(sharing, tls_origin, workshop, tls_client):
    def echo(request):
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body

    context = workshop.server(workshop.issue("a.test"))
    async with (
        tls_origin(context, answering(echo)) as (backend, _),
        sharing((backend, passed())) as site,
        tls_client(site, workshop.client()) as peer,
    ):
        head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        assert (await peer.ask(head + BODY)).body == BODY


async def test_one_name_ends_here_and_another_is_passed_through(
    sharing, origin, tls_origin, workshop, tls_client, ended_here
):
    context = workshop.server(workshop.issue("b.test", file="b"))
    async with (
        origin(saying(b"a")) as one,
        tls_origin(context, saying(b"b")) as (two, _),
        sharing((one, ended_here("a.test", "c.test")), (two, passed("b.test"))) as site,
    ):
        for name, want in (("a.test", b"a"), ("b.test", b"b"), ("c.test", b"a")):
            async with tls_client(site, workshop.client(), name) as peer:
                assert (await peer.ask(asking(name.encode()))).body == want
        async with tls_client(site, workshop.client(), "a.test") as peer:
            assert (await peer.ask(asking(b"b.test"))).status == 421
            await site.counts("drops.misdirected", 1)


async def test_plain_http_where_tls_is_passed_through_is_told_so(sharing, tls_origin, workshop):
    context = workshop.server(workshop.issue("a.test"))
    async with tls_origin(context) as (backend, _), sharing((backend, passed())) as site:
        peer = await site.client()
        assert (await peer.ask()).status == 400
        assert backend.connections == 0


async def test_a_hello_that_comes_in_pieces_is_passed_through_whole(sharing, tls_origin, workshop):
    context = workshop.server(workshop.issue("a.test"))
    async with (
        tls_origin(context, saying(b"a")) as (backend, _),
        sharing((backend, passed("a.test"))) as site,
    ):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = workshop.client().wrap_bio(incoming, outgoing, server_hostname="a.test")
        peer = await site.client()
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        for at in range(0, len(hello), 40):
            await peer.send(hello[at : at + 40])
            await trio.lowlevel.checkpoint()
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                if sent := outgoing.read():
                    await peer.send(sent)
                assert await peer.more()
                incoming.write(peer.buffer)
                peer.buffer = b""
        assert tls.getpeercert()["subjectAltName"] == (("DNS", "a.test"),)


@pytest.mark.parametrize("is_passed", [False, True])
async def test_a_proxy_header_comes_before_tls(
    sharing, origin, tls_origin, workshop, tls_client, ended_here, is_passed
):
    header = encode_v2(("192.0.2.7", 1234), ("198.51.100.1", 8443))
    accepting = {"proxy_protocol": ProxyProtocol(accept=True)}
    context = workshop.server(workshop.issue("b.test", file="b"))
    beside = [] if not is_passed else [passed("b.test", **accepting)]
    async with (
        origin() as one,
        tls_origin(context) as (two, _),
        sharing((one, {**ended_here(), **accepting}), *((two, service) for service in beside)) as site,
    ):
        async with tls_client(site, workshop.client(), before=header) as peer:
            assert (await peer.ask()).body == b"ok"
        fields = dict(one.requests[0].fields)
        assert fields[b"x-forwarded-for"] == b"192.0.2.7"
        assert fields[b"x-forwarded-port"] == b"8443"
        if is_passed:
            async with tls_client(site, workshop.client(), "b.test", before=header) as peer:
                assert (await peer.ask()).body == b"ok"
        with pytest.raises((OSError, trio.BrokenResourceError)):
            async with tls_client(site, workshop.client()):
                pass
        await site.counts("drops.proxy_header_invalid", 1)


async def test_a_proxy_header_comes_before_plain_http(serving, origin):
    header = encode_v2(("2001:db8::7", 1234), ("2001:db8::1", 80))
    async with origin() as backend, serving(backend, proxy_protocol=ProxyProtocol(accept=True)) as site:
        peer = await site.client()
        for at in range(0, len(header), 10):
            await peer.send(header[at : at + 10])
            await trio.lowlevel.checkpoint()
        assert [(await peer.ask()).body for _ in range(2)] == [b"ok"] * 2
        fields = dict(backend.requests[0].fields)
        assert fields[b"x-forwarded-for"] == b"2001:db8::7"
        assert fields[b"x-forwarded-proto"] == b"http"
        cut = await site.client()
        await cut.send(header[:20])
        await cut.stream.send_eof()
        assert await cut.is_ended()
        await site.counts("drops.proxy_header_invalid", 1)


@pytest.mark.parametrize("version", [ProxyHeader.V1, ProxyHeader.V2])
async def test_backends_are_told_each_client_and_connections_are_not_shared(serving, origin, version):
    seen = []

    async def serve(peer, requests):
        if version is ProxyHeader.V1:
            seen.append((await peer.until(b"\r\n")).split()[4])
        else:
            seen.append(b"%d" % int.from_bytes((await peer.exactly(28))[24:26]))
        await answering()(peer, requests)

    async with origin(serve) as backend, serving(backend, proxy_protocol=ProxyProtocol(send=version)) as site:
        clients = [await site.client() for _ in range(2)]
        for peer in (*clients, *clients):
            assert (await peer.ask(GET)).body == b"ok"
        ports = [b"%d" % peer.stream.socket.getsockname()[1] for peer in clients]
    assert seen == ports * 2


async def test_what_clients_have_to_prove_may_change(sharing, origin, workshop, tls_client, ended_here):
    service = ended_here()
    async with (
        origin() as backend,
        sharing((backend, service)) as site,
        tls_client(site, workshop.client()) as old,
    ):
        assert (await old.ask()).body == b"ok"
        asks = attrs.evolve(service["tls"], client_ca=workshop.authorities())
        site.running.put(attrs.evolve(site.service, tls=asks))
        pair = workshop.issue("client.test", file="client")
        while True:
            try:
                async with tls_client(site, workshop.client()) as peer:
                    await peer.ask()
            except trio.BrokenResourceError:
                break
        assert (await old.ask()).status == 421
        async with tls_client(site, workshop.client(certificate=pair)) as peer:
            assert (await peer.ask()).body == b"ok"


async def test_each_passed_through_service_keeps_its_own_limit(sharing, tls_origin, workshop, tls_client):
    context = workshop.server(workshop.issue("a.test", "b.test"))
    async with (
        tls_origin(context) as (backend, _),
        sharing((backend, passed("a.test")), (backend, passed("b.test", max_connections=1))) as site,
        tls_client(site, workshop.client(), "b.test") as first,
    ):
        with pytest.raises((OSError, trio.BrokenResourceError)):
            async with tls_client(site, workshop.client(), "b.test"):
                pass
        async with tls_client(site, workshop.client(), "a.test") as other:
            assert (await other.ask()).body == b"ok"
        assert (await first.ask()).body == b"ok"
        second = (await site.running.stats()).services["web1"]
        assert (second.connections_active, second.drops["max_connections"]) == (1, 1)
