"""What the path between the relay and a backend says of a datagram that is too large for it."""

from __future__ import annotations

import socket
import struct

import pytest

from marchproxy_core.config import Settings
from marchproxy_core.services import Protocol
from marchproxy_core.testing import Subject, open_lab_wire, until
from marchproxy_core.testing.laws.traffic import ask_udp, service_for
from marchproxy_core.testing.servers import udp_server
from marchproxy_sockets import plugin

pytestmark = pytest.mark.root

_UDP = socket.IPPROTO_UDP


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def fragmentation_needed(quoted: bytes, mtu: int) -> bytes:
    """ICMP type 3, code 4, with the next hop's MTU (RFC 1191, section 4)."""
    message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def start_of_datagram(source: tuple[str, int], destination: tuple[str, int], size: int) -> bytes:
    """The IPv4 and the UDP header of a datagram that was sent, as a router quotes them."""
    hosts = [socket.inet_aton(host) for host, _ in (source, destination)]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + size, 1, 0x4000, 63, _UDP, 0, *hosts)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + struct.pack("!HHHH", source[1], destination[1], 8 + size, 0)


async def test_a_narrow_path_ends_no_flow_and_is_no_fault_of_the_backend(lab):
    async with open_lab_wire(lab) as wire, udp_server(wire) as server:
        subject = await Subject.of(plugin, Settings(worker_threads=1))
        service = service_for(wire, server.backend, protocol=Protocol.UDP)
        router = await lab.server.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with router:
            async with subject.running(service) as running:
                with await wire.connect_udp(service.listen[0]) as client:
                    assert await ask_udp(client, b"hello") == b"hello"
                    (relay,) = server.received
                    quoted = start_of_datagram(relay, (str(server.endpoint.ip), server.endpoint.port), 1400)
                    router.sendto(fragmentation_needed(quoted, 1280), (relay[0], 0))

                    async def counted() -> bool:
                        return (await running.stats_of(service)).drops.get("send_failed", 0) == 1

                    await until(counted, what="the datagram that did not pass is counted")
                    for size in (1400, 10):
                        assert await ask_udp(client, bytes(size)) == bytes(size)
                assert list(server.received) == [relay], "the flow went on"
                assert not [seen for seen in running.observed if not seen.ok], "the backend is not blamed"
