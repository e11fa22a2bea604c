"""ICMP errors of a backend's host reach the client as errors about its own flow, from the address that it talks to."""

from __future__ import annotations

import errno
import socket

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.packet import raw

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Endpoint, Protocol
from marchproxy_core.testing import Subject, open_lab_wire, until
from marchproxy_core.testing.laws.traffic import ask_udp, service_for
from marchproxy_core.testing.servers import udp_server
from marchproxy_ebpf import plugin

pytestmark = pytest.mark.root


@pytest.mark.parametrize("version", [4, 6])
async def test_a_closed_port_of_a_backend_is_told_to_the_client(lab, version):
    async with open_lab_wire(lab) as wire:
        with await wire.bind_server(Protocol.UDP, version) as sock:
            closed = sock.getsockname()[1]
        subject = await Subject.of(plugin, Settings(worker_threads=1))
        backend = Backend(endpoint=Endpoint(wire.server.of(version), closed))
        service = service_for(wire, backend, version=version, protocol=Protocol.UDP)
        async with subject.running(service):
            with await wire.connect_udp(service.listen[0]) as client:
                await client.send(b"anybody?")

                async def is_refused() -> bool:
                    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

                await until(is_refused, what="an ICMP error")


def ping(ip: str) -> bytes:
    """Send an echo request, and return the payload of the first answer."""
    request = raw(ICMP(id=7, seq=1) / b"are you there?")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(10)
        sock.sendto(request, (ip, 0))
        answer = IP(sock.recv(2000))
    assert answer[ICMP].type == 0
    return bytes(answer[ICMP].payload)


async def test_a_service_address_still_answers_pings(lab):
    async with open_lab_wire(lab) as wire, udp_server(wire) as server:
        subject = await Subject.of(plugin, Settings(worker_threads=1))
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        async with subject.running(service):
            with await wire.connect_udp(service.listen[0]) as client:
                assert await ask_udp(client, b"hello") == b"hello"
            assert await lab.client.call(ping, str(lab.front_ip.ip4)) == b"are you there?"
