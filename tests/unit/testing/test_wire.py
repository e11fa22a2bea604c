"""A wire's ends are where they are said to be, and the trio threads come home from a laboratory."""

from __future__ import annotations

import socket
import threading

import pytest
import trio

from marchproxy_core.services import Protocol
from marchproxy_core.testing import open_lab_wire, open_loopback_wire
from marchproxy_core.testing.servers import tcp_server


def interfaces():
    return {name for _, name in socket.if_nameindex()}


async def interfaces_seen_by_threads(count):
    """Ask in as many threads at once, so that idle ones are used."""
    meeting = threading.Barrier(count)
    seen = []

    def look():
        meeting.wait(10)
        seen.append(interfaces())

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(trio.to_thread.run_sync, look)
    return seen


@pytest.mark.root
async def test_in_the_lab_every_trio_thread_is_in_the_proxys_namespace_and_comes_home(lab):
    home = interfaces()
    proxy = {"lo", "to_client", "to_server"}
    await interfaces_seen_by_threads(3)
    async with open_lab_wire(lab):
        assert interfaces() == proxy
        assert await interfaces_seen_by_threads(5) == [proxy] * 5
    assert interfaces() == home
    assert await interfaces_seen_by_threads(7) == [home] * 7


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
async def test_in_the_lab_client_and_server_are_on_either_side_of_the_proxy(lab, version):
    async with open_lab_wire(lab) as wire, tcp_server(wire, version, name=b"far side") as server:
        assert server.endpoint.ip == lab.server_ip.of(version)
        async with await trio.open_tcp_stream(str(server.endpoint.ip), server.endpoint.port) as stream:
            assert await stream.receive_some() == b"far side"
            assert stream.socket.getsockname()[0] == str(lab.back_ip.of(version))
        listening = trio.socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
        front = wire.free_port(Protocol.TCP, version)
        with listening:
            await listening.bind((str(front.ip), front.port))
            listening.listen()
            async with await wire.connect(front) as client:
                accepted, address = await listening.accept()
                accepted.close()
                assert address[0] == str(lab.client_ip.of(version))
                assert await client.receive_some() == b""


async def test_a_port_where_nobody_listens_is_an_error_that_leaves_nothing_open():
    async with open_loopback_wire() as wire:
        with pytest.raises(ConnectionRefusedError):
            await wire.connect(wire.free_port(Protocol.TCP, 4))
