"""ICMP errors through the driver: what is too big is answered there, what a backend's host says reaches the client."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from marchproxy_core.services import Protocol
from marchproxy_core.testing import until
from marchproxy_core.testing.laws.traffic import ask_udp, service_for
from marchproxy_core.testing.servers import receive_all, tcp_server, udp_server

pytestmark = pytest.mark.root

# include/uapi/linux/in.h, in6.h
_IP_MTU, _IPV6_MTU = 14, 24
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2
_NARROW = 1400
_BULK = bytes(range(256)) * 4096


def known_mtu(sock, version):
    """What the kernel knows of the path of a connected socket."""
    level, name = (socket.IPPROTO_IP, _IP_MTU) if version == 4 else (socket.IPPROTO_IPV6, _IPV6_MTU)
    return sock.getsockopt(level, name)


@pytest.mark.parametrize("version", [4, 6])
async def test_a_client_learns_that_the_way_to_the_backend_is_narrower(rig, lab, wire, version):
    async def count(stream):
        await stream.send_all(str(len(await receive_all(stream))).encode())

    async with tcp_server(wire, version, serve=count) as server:
        service = service_for(wire, server.backend, version=version)
        async with (await rig.subject()).running(service):
            await lab.proxy.set_mtu("to_server", _NARROW)
            with trio.fail_after(20):
                async with await wire.connect(service.listen[0]) as client:
                    assert known_mtu(client.socket, version) == 1500
                    await client.send_all(_BULK)
                    await client.send_eof()
                    assert await receive_all(client) == str(len(_BULK)).encode()
                    assert known_mtu(client.socket, version) == _NARROW


async def test_a_datagram_that_is_too_big_is_answered_with_the_size_that_fits(rig, lab, wire):
    async with udp_server(wire) as server:
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        async with (await rig.subject()).running(service):
            await lab.proxy.set_mtu("to_server", _NARROW)
            with await wire.connect_udp(service.listen[0]) as client:
                client.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
                await client.send(b"x" * 1450)

                async def is_told():
                    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE

                await until(is_told, what="an ICMP error")
                assert known_mtu(client, 4) == _NARROW
                assert await ask_udp(client, b"y" * 1300) == b"y" * 1300


@pytest.mark.parametrize("version", [4, 6])
async def test_a_backend_that_refuses_datagrams_is_heard_by_the_client(rig, wire, version):
    async with udp_server(wire, version) as server:
        backend = server.backend
    service = service_for(wire, backend, version=version, protocol=Protocol.UDP)
    async with (await rig.subject()).running(service):
        with await wire.connect_udp(service.listen[0]) as client:
            await client.send(b"anybody?")

            async def is_refused():
                return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

            await until(is_refused, what="an ICMP error")
