"""A path that is narrower behind the proxy: the sender is told by ICMP, from the address it knows, and goes on."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Protocol
from marchproxy_core.testing import Subject, open_lab_wire, until
from marchproxy_core.testing.laws.traffic import ask_udp, service_for
from marchproxy_core.testing.servers import receive_all, tcp_server, udp_server
from marchproxy_ebpf import plugin

pytestmark = pytest.mark.root

# include/uapi/linux/in.h, in6.h
_IP_MTU, _IPV6_MTU = 14, 24
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2
_BULK = bytes(range(256)) * 4096


def known_mtu(sock: socket.socket | trio.socket.SocketType, version: int) -> int:
    """Return what the kernel knows of the path of a connected socket."""
    level, name = (socket.IPPROTO_IP, _IP_MTU) if version == 4 else (socket.IPPROTO_IPV6, _IPV6_MTU)
    return sock.getsockopt(level, name)


@pytest.mark.parametrize("version", [4, 6])
async def test_a_client_learns_that_the_way_to_the_backend_is_narrower(lab, version):
    async def keep_all(stream: trio.SocketStream) -> None:
        await stream.send_all(str(len(await receive_all(stream))).encode())

    async with open_lab_wire(lab) as wire, tcp_server(wire, version, serve=keep_all) as server:
        subject = await Subject.of(plugin, Settings(worker_threads=1))
        service = service_for(wire, server.backend, version=version)
        async with subject.running(service):
            await lab.proxy.set_mtu("to_server", 1400)
            with trio.fail_after(20):
                async with await wire.connect(service.listen[0]) as client:
                    assert known_mtu(client.socket, version) == 1500
                    await client.send_all(_BULK)
                    await client.send_eof()
                    assert await receive_all(client) == str(len(_BULK)).encode()
                    assert known_mtu(client.socket, version) == 1400


async def test_a_datagram_that_is_too_big_is_answered_with_the_size_that_fits(lab):
    async with open_lab_wire(lab) as wire, udp_server(wire) as server:
        subject = await Subject.of(plugin, Settings(worker_threads=1))
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        async with subject.running(service):
            await lab.proxy.set_mtu("to_server", 1400)
            with await wire.connect_udp(service.listen[0]) as client:
                client.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
                await client.send(b"x" * 1450)

                async def is_told() -> bool:
                    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE

                await until(is_told, what="an ICMP error")
                assert known_mtu(client, 4) == 1400
                assert await ask_udp(client, b"y" * 1300) == b"y" * 1300
