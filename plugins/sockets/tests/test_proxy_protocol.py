"""PROXY headers on real connections: sent to backends, taken from clients, and refused."""

from __future__ import annotations

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.relay.proxy_header import decode_v2, encode_v2
from marchproxy_core.services import Balance, ProxyHeader, ProxyProtocol
from marchproxy_core.testing import open_loopback_wire, until
from marchproxy_core.testing.servers import receive_all, receive_exactly, tcp_server

CLIENT = ("198.51.100.7", 4711)
FRONT = ("203.0.113.1", 443)


async def exchange(wire, service, *parts: bytes) -> bytes:
    """Send the parts one by one, end the stream, and return what came back."""
    with trio.fail_after(20):
        async with await wire.connect(service.listen[0]) as client:
            for part in parts:
                await client.send_all(part)
                await trio.lowlevel.checkpoint()
            await client.send_eof()
            return await receive_all(client)


async def test_version_1_names_the_client_before_its_first_byte(relaying_to):
    proxy = ProxyProtocol(send=ProxyHeader.V1)
    async with relaying_to(name=b"", proxy_protocol=proxy) as (_, service, wire, _):
        with trio.fail_after(20):
            async with await wire.connect(service.listen[0]) as client:
                source, front = client.socket.getsockname(), client.socket.getpeername()
                line = f"PROXY TCP4 {source[0]} {front[0]} {source[1]} {front[1]}\r\n".encode()
                await client.send_all(b"hello")
                assert await receive_exactly(client, len(line) + 5) == line + b"hello"


@pytest.mark.parametrize("version", [4, 6])
async def test_version_2_names_the_client_also_when_it_says_nothing(relaying_to, version):
    proxy = ProxyProtocol(send=ProxyHeader.V2)
    async with relaying_to(name=b"", proxy_protocol=proxy, version=version) as (_, service, wire, _):
        with trio.fail_after(20):
            async with await wire.connect(service.listen[0]) as client:
                header = encode_v2(client.socket.getsockname(), client.socket.getpeername())
                assert await receive_exactly(client, len(header)) == header


async def test_a_header_that_came_in_goes_on_with_the_same_client(relaying_to):
    proxy = ProxyProtocol(accept=True, send=ProxyHeader.V2)
    async with relaying_to(name=b"", proxy_protocol=proxy) as (_, service, wire, _):
        header = encode_v2(CLIENT, FRONT)
        assert await exchange(wire, service, header + b"hello") == header + b"hello"


async def test_a_header_in_pieces_is_taken_and_the_stream_begins_after_it(relaying_to):
    proxy = ProxyProtocol(accept=True)
    async with relaying_to(name=b"", proxy_protocol=proxy) as (running, service, wire, _):
        stream = encode_v2(CLIENT, FRONT) + b"hello"
        for size in (1, 13, len(stream) - 1):
            parts = [stream[start : start + size] for start in range(0, len(stream), size)]
            assert await exchange(wire, service, *parts) == b"hello"
        assert (await running.stats_of(service)).bytes_in == 15, "a header is no payload"


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", encode_v2(CLIENT, FRONT)[:20]]
)
async def test_whoever_begins_otherwise_is_reset_and_counted(relaying_to, sent):
    proxy = ProxyProtocol(accept=True)
    async with relaying_to(name=b"", proxy_protocol=proxy) as (running, service, wire, server):
        with pytest.raises(trio.BrokenResourceError):
            await exchange(wire, service, sent)

        async def counted() -> bool:
            return (await running.stats_of(service)).drops.get("proxy_header_invalid") == 1

        await until(counted)
        assert server.opened == 0, "no backend is bothered with it"


async def test_whoever_sends_no_header_is_reset_after_the_read_timeout(relaying_to):
    proxy = ProxyProtocol(accept=True)
    settings = Settings(worker_threads=1, read_timeout=0.3)
    async with relaying_to(name=b"", proxy_protocol=proxy, settings=settings) as (
        running,
        service,
        wire,
        _,
    ):
        async with await wire.connect(service.listen[0]) as client:
            with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
                await client.receive_some()

        async def counted() -> bool:
            return (await running.stats_of(service)).drops.get("read_timeout") == 1

        await until(counted)


async def test_maglev_goes_by_the_client_that_the_header_names(relaying):
    proxy = ProxyProtocol(accept=True)
    async with (
        open_loopback_wire() as here,
        tcp_server(here, name=b"a") as a,
        tcp_server(here, name=b"b") as b,
    ):
        options = {"balance": Balance.MAGLEV, "proxy_protocol": proxy}
        async with relaying(a.backend, b.backend, **options) as (_, service, wire):
            seen: dict[int, set[bytes]] = {}
            for _ in range(2):
                for last in range(1, 17):
                    header = encode_v2((f"198.51.100.{last}", 4711), FRONT)
                    seen.setdefault(last, set()).add(await exchange(wire, service, header))
            assert all(len(names) == 1 for names in seen.values()), "a client keeps its backend"
            assert set.union(*seen.values()) == {b"a", b"b"}, "clients differ"


def test_the_header_of_these_tests_is_one() -> None:
    decoded = decode_v2(encode_v2(CLIENT, FRONT))
    assert decoded is not None
    assert (decoded.source, decoded.destination) == (CLIENT, FRONT)
