"""Clients whose TLS ends here: what they speak, what they have to prove, what they are told when it fails."""

from __future__ import annotations

import os
import socket
import ssl

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.testing import until
from plugins.application.tests.http_rig import GET, answering

BODY = os.urandom(3 << 20)
RECORD_BYTES = 16384


def echo(request):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body) + request.body


async def test_a_request_comes_through_and_its_origin_is_told(
    serving, origin, workshop, tls_client, ended_here
):
    async with origin() as backend, serving(backend, **ended_here()) as site:
        async with tls_client(site, workshop.client()) as peer:
            assert [(await peer.ask()).body for _ in range(3)] == [b"ok"] * 3
        fields = dict(backend.requests[0].fields)
        assert fields[b"x-forwarded-proto"] == b"https"
        assert fields[b"x-forwarded-port"] == str(site.service.listen[0].port).encode()
        await site.counts("connections_active", 0)
        assert (await site.stats()).connections_opened == 1


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_large_bodies_go_both_ways(serving, origin, workshop, tls_client, ended_here, version):
    only = ssl.TLSVersion[version]
    client = workshop.client(least=only, most=only)
    async with (
        origin(answering(echo)) as backend,
        serving(backend, **ended_here()) as site,
        tls_client(site, client) as peer,
    ):
        head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        for _ in range(2):
            assert (await peer.ask(head + BODY)).body == BODY
        assert peer.stream.version() == version.replace("_", ".")


async def test_who_reads_late_gets_every_byte(serving, origin, workshop, tls_client, ended_here):
    body = BODY * 8

    def large(request):
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async with (
        origin(answering(large)) as backend,
        serving(backend, **ended_here()) as site,
        tls_client(site, workshop.client()) as peer,
    ):
        await peer.send(GET)

        async def is_stuck():
            before = (await site.stats()).bytes_out
            await trio.sleep(0.1)
            return 0 < before == (await site.stats()).bytes_out < len(body)

        await until(is_stuck)
        assert (await peer.answer()).body == body


async def test_the_end_is_announced_where_a_stream_ends_well_and_only_there(
    serving, origin, workshop, tls_client, ended_here
):
    async def serve(peer, requests):
        requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    closing = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
    async with (
        origin() as backend,
        serving(backend, **ended_here()) as site,
        tls_client(site, workshop.client()) as peer,
    ):
        assert (await peer.ask(closing)).body == b"ok"
        assert await peer.rest() == b""
    async with (
        origin(serve) as backend,
        serving(backend, **ended_here()) as site,
        tls_client(site, workshop.client()) as peer,
    ):
        await peer.send(closing)
        with pytest.raises(trio.BrokenResourceError):
            await peer.answer()


async def test_http_2_is_offered_and_spoken(serving, origin, workshop, tls_client, ended_here, curl):
    async with origin() as backend, serving(backend, **ended_here()) as site:
        for offered, picked in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
            async with tls_client(site, workshop.client(alpn=offered)) as peer:
                assert peer.stream.selected_alpn_protocol() == picked
        address = site.service.listen[0]
        for option, version in (("--http2", b"2"), ("--http1.1", b"1.1")):
            done = await curl(
                option, "--cacert", workshop.authorities(), "--resolve", f"a.test:{address.port}:{address.ip}",
                "--write-out", "%{http_version}", f"https://a.test:{address.port}/",
            )  # fmt: skip
            assert done.stdout == b"ok" + version, done.stderr


async def test_large_bodies_go_through_http_2(serving, origin, workshop, ended_here, curl, tmp_path):
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(BODY)
    async with origin(answering(echo)) as backend, serving(backend, **ended_here()) as site:
        address = site.service.listen[0]
        done = await curl(
            "--http2", "--cacert", workshop.authorities(), "--resolve", f"a.test:{address.port}:{address.ip}",
            "--data-binary", f"@{sent}", "--output", str(got), "--write-out", "%{http_version}",
            f"https://a.test:{address.port}/",
        )  # fmt: skip
        assert done.stdout == b"2", done.stderr
        assert got.read_bytes() == BODY
        assert dict(backend.requests[0].fields)[b"x-forwarded-proto"] == b"https"


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_a_client_has_to_prove_who_it_is(
    serving, origin, workshop, stranger, tls_client, ended_here, version
):
    only = ssl.TLSVersion[version]
    ours = workshop.issue("client.test", file="client")
    theirs = stranger.issue("client.test", file="client")
    async with (
        origin() as backend,
        serving(backend, **ended_here(client_ca=workshop.authorities())) as site,
    ):
        async with tls_client(site, workshop.client(certificate=ours, most=only)) as peer:
            assert (await peer.ask()).body == b"ok"
        for certificate in (None, theirs):
            # With TLS 1.3 a client's handshake is over before its certificate is judged.
            with pytest.raises(trio.BrokenResourceError) as raised:
                async with tls_client(site, workshop.client(certificate=certificate, most=only)) as peer:
                    await peer.ask()
            assert "alert" in str(raised.value.__cause__).lower()
        await site.counts("drops.tls_failed", 2)
        assert len(backend.requests) == 1


async def test_a_client_may_come_without_a_certificate_where_it_is_optional(
    serving, origin, workshop, stranger, tls_client, ended_here
):
    theirs = stranger.issue("client.test", file="client")
    service = ended_here(client_ca=workshop.authorities(), client_optional=True)
    async with origin() as backend, serving(backend, **service) as site:
        async with tls_client(site, workshop.client()) as peer:
            assert (await peer.ask()).body == b"ok"
        with pytest.raises(trio.BrokenResourceError):
            async with tls_client(site, workshop.client(certificate=theirs)) as peer:
                await peer.ask()


async def test_a_session_is_resumed(serving, origin, workshop, ended_here):
    client = workshop.client()

    def ask(address, session):
        raw = socket.create_connection(address)
        with client.wrap_socket(raw, server_hostname="a.test", session=session) as sock:
            sock.sendall(GET)
            assert sock.recv(1 << 16).endswith(b"ok")
            return sock.session_reused, sock.session

    async with origin() as backend, serving(backend, **ended_here()) as site:
        endpoint = site.service.listen[0]
        address = (str(endpoint.ip), endpoint.port)
        was_reused, session = await trio.to_thread.run_sync(ask, address, None)
        assert not was_reused
        assert (await trio.to_thread.run_sync(ask, address, session))[0]


async def shown(site, tls_client, context):
    """Return the number of the certificate that a new connection is shown."""
    async with tls_client(site, context) as peer:
        return peer.stream.getpeercert()["serialNumber"]


async def test_a_renewed_certificate_is_shown_and_connections_go_on(
    serving, origin, workshop, tls_client, ended_here
):
    client = workshop.client()
    async with (
        origin() as backend,
        serving(backend, **ended_here()) as site,
        tls_client(site, client) as old,
    ):
        before = await shown(site, tls_client, client)
        workshop.issue("a.test")

        async def is_renewed():
            return await shown(site, tls_client, client) != before

        await until(is_renewed)
        assert (await old.ask()).body == b"ok"


async def test_a_bad_new_certificate_leaves_the_old_one(
    serving, origin, workshop, tls_client, ended_here, log_events
):
    client = workshop.client()
    async with origin() as backend, serving(backend, **ended_here()) as site:
        before = await shown(site, tls_client, client)
        (workshop.folder / "cert.pem").write_text("nothing of the kind")
        told = []

        async def is_told():
            told.extend(log_events("certificate.refused"))
            return bool(told)

        await until(is_told)
        assert told[0]["kept"] is True
        assert await shown(site, tls_client, client) == before


async def test_without_a_certificate_clients_are_reset_until_there_is_one(
    serving, origin, workshop, tls_client, ended_here, log_events
):
    service = ended_here()
    kept = (workshop.folder / "cert.pem").read_bytes()
    (workshop.folder / "cert.pem").unlink()
    async with origin() as backend, serving(backend, **service) as site:
        for _ in range(2):
            with pytest.raises((OSError, trio.BrokenResourceError)):
                async with tls_client(site, workshop.client()):
                    pass
        assert len(log_events("certificate.lacked")) == 1
        (workshop.folder / "cert.pem").write_bytes(kept)

        async def is_served():
            try:
                async with tls_client(site, workshop.client()) as peer:
                    return (await peer.ask()).body == b"ok"
            except (OSError, trio.BrokenResourceError):
                return False

        await until(is_served)


async def test_plain_http_is_told_that_tls_is_spoken(serving, origin, ended_here):
    async with origin() as backend, serving(backend, **ended_here()) as site:
        peer = await site.client()
        answer = await peer.ask()
        assert (answer.status, answer.body) == (400, b"this port speaks TLS\n")
        assert await peer.rest() == b""
        await site.counts("drops.tls_failed", 1)
        await site.counts("connections_active", 0)


@pytest.mark.parametrize("garbage", [b"\0" * 100, os.urandom(5000), b"\x16\x03\x01\x40\x00" + b"\1" * 20000])
async def test_garbage_ends_the_connection_alone(serving, origin, workshop, tls_client, ended_here, garbage):
    async with origin() as backend, serving(backend, **ended_here()) as site:
        peer = await site.client()
        await peer.send(garbage)
        try:
            while await peer.more():
                pass
        except trio.BrokenResourceError:
            pass
        await site.counts("drops.tls_failed", 1)
        async with tls_client(site, workshop.client()) as other:
            assert (await other.ask()).body == b"ok"


async def test_a_handshake_may_not_take_for_ever(serving, origin, ended_here):
    settings = Settings(worker_threads=1, read_timeout=0.5)
    async with origin() as backend, serving(backend, settings=settings, **ended_here()) as site:
        silent, slow = await site.client(), await site.client()
        await slow.send(b"\x16\x03\x01\x02\x00\x01")
        assert await silent.is_ended()
        assert await slow.is_ended()
        await site.counts("drops.read_timeout", 2)
        await site.counts("connections_active", 0)


async def test_a_websocket_goes_through_tls(serving, workshop, origin, tls_client, ended_here):
    async def serve(peer, requests):
        requests.append(await peer.head())
        await peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        await peer.send(await peer.exactly(len(frame)))

    frame = b"\x82\xfe\xff\xff" + b"\0\0\0\0" + os.urandom(65535)
    ask = (
        b"GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with (
        origin(serve) as backend,
        serving(backend, websocket=True, **ended_here()) as site,
        tls_client(site, workshop.client()) as peer,
    ):
        assert (await peer.ask(ask)).status == 101
        await peer.send(frame)
        assert await peer.exactly(len(frame)) == frame
        assert await peer.rest() == b""
