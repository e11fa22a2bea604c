"""Who is told to be whom."""

from __future__ import annotations

import socket
import struct

from tests.parity.ends import receive
from tests.parity.scenario import scenario
from tests.parity.tier_site import NAT_PORTS, SECOND_FRONT

_PORT_OF_ITS_OWN = NAT_PORTS.start + 1001
_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


@scenario(
    "address that the backend sees",
    note="`NAT_PORT_RANGE` lies outside of `ip_local_port_range` unless it is set; a port that is taken is replaced.",
)
async def seen_by_backend(stage):
    _, backend = await stage.pair()
    ip, port = backend.socket.getpeername()[:2]
    _, near = await stage.pair(port=_PORT_OF_ITS_OWN)
    kept = near.socket.getpeername()[1] == _PORT_OF_ITS_OWN
    if port in NAT_PORTS:
        ports = "port from `NAT_PORT_RANGE`" + (", the client's own if it is in there" if kept else "")
    else:
        ports = "port that the kernel chose from `ip_local_port_range`" + (
            ", or the client's" if kept else ""
        )
    return f"{stage.whose(ip)}; {ports}"


def _expected(version, client, service):
    """The header about a client, by the specification (haproxy.org, proxy-protocol.txt, 2.1 and 2.2)."""
    (source, port), (front, front_port) = client.getsockname()[:2], service
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    if version == 1:
        name = "TCP6" if family == socket.AF_INET6 else "TCP4"
        return f"PROXY {name} {source} {front} {port} {front_port}\r\n".encode()
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, front)
    body = addresses + struct.pack("!HH", port, front_port)
    about = 0x21 if family == socket.AF_INET6 else 0x11
    return _V2_SIGNATURE + struct.pack("!BBH", 0x21, about, len(body)) + body


async def _is_told(stage, version):
    client, backend = await stage.pair()
    wanted = _expected(version, client.socket, (stage.front, stage.service.port))
    await client.send_all(b"x")
    told = await receive(backend, len(wanted) + 1) == wanted + b"x"
    return ("told" if told else "not told") + await stage.by_whom()


_TCP_ONLY = "TCP only; UDP backends are not told."


@scenario(
    "the client's address, by PROXY protocol version 1",
    options={"proxy_protocol": "v1"},
    carried_below=True,
    note=_TCP_ONLY,
)
async def by_proxy_protocol_1(stage):
    return await _is_told(stage, 1)


@scenario(
    "the client's address, by PROXY protocol version 2",
    options={"proxy_protocol": "v2"},
    carried_below=True,
    note=_TCP_ONLY,
)
async def by_proxy_protocol_2(stage):
    return await _is_told(stage, 2)


@scenario("answers on a wildcard address, UDP", protocol="udp", on_every_address=True, alike=True)
async def from_the_address_that_was_asked(stage):
    asked = SECOND_FRONT[stage.version]
    sock = await stage.client()
    await sock.connect((asked, stage.service.port))
    await sock.send(b"who?")
    _, peer = await stage.backend.recvfrom(100)
    await stage.backend.sendto(b"me", peer)
    # A connected socket takes datagrams from its peer alone.
    return "come from the address that the client sent to" if await sock.recv(100) == b"me" else "are mangled"
