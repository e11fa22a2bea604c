"""What of a packet's headers gets through."""

from __future__ import annotations

import socket

import trio
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from tests.parity.ends import PATIENCE_S
from tests.parity.scenario import scenario

_IP_RECVTTL = 12  # include/uapi/linux/in.h
_TCP_SAVED_SYN = 28  # include/uapi/linux/tcp.h
_TTL, _DSCP = 40, 0x28
_MSS = 1000
_OPTIONS_IN_TCP_INFO = 5  # struct tcp_info, include/uapi/linux/tcp.h
_EVERY_OPTION = 1 | 2 | 4  # TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE
_SWITCHES = ("tcp_timestamps", "tcp_sack", "tcp_window_scaling")


def _send_with(sock, ttl, traffic_class):
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)


def _tell_headers(sock):
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)


async def _headers_of_next(sock):
    """Receive a datagram; return its TTL, its traffic class, and who sent it."""
    with trio.fail_after(PATIENCE_S):
        _, ancillary, _, peer = await sock.recvmsg(100, 200)
    found = {(level, kind): data[0] for level, kind, data in ancillary}
    if sock.family == socket.AF_INET:
        return found[socket.IPPROTO_IP, socket.IP_TTL], found[socket.IPPROTO_IP, socket.IP_TOS], peer
    level = socket.IPPROTO_IPV6
    return found[level, socket.IPV6_HOPLIMIT], found[level, socket.IPV6_TCLASS], peer


@scenario("time to live (hop limit) and DSCP of datagrams, each way", protocol="udp")
async def ttl_and_dscp(stage):
    client = await stage.client()
    for sock in (client, stage.backend):
        _send_with(sock, _TTL, _DSCP)
        _tell_headers(sock)
    await client.send(b"up")
    *up, peer = await _headers_of_next(stage.backend)
    await stage.backend.sendto(b"down", peer)
    *down, _ = await _headers_of_next(client)
    assert up == down, f"not the same each way: {up} and {down}"
    words = {_TTL - 1: "the sender's less one", _TTL: "the sender's", 64: "the proxy's own"}
    dscp = {_DSCP: "the sender's", 0: "the proxy's own"}
    return f"time to live: {words.get(up[0], up[0])}; DSCP: {dscp.get(up[1], up[1])}"


def _options(syn):
    """Read the TCP options of a SYN, from its IP header on."""
    packet = IPv6(syn) if syn[0] >> 4 == 6 else IP(syn)
    return dict(packet[TCP].options)


def _mss_of_ours(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _MSS)


async def _switch(namespace, on):
    for name in _SWITCHES:
        await namespace.set_sysctl(f"net.ipv4.{name}", int(on))


@scenario("MSS, window scale, SACK, timestamps that the backend sees in the SYN", turn=1)
async def options_of_syn(stage):
    await _switch(stage.site.lab.client, on=False)
    try:
        _, backend = await stage.pair(prepare=_mss_of_ours)
    finally:
        await _switch(stage.site.lab.client, on=True)
    seen = _options(backend.socket.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, 500))
    if seen.get("MSS") == _MSS and not {"SAckOK", "Timestamp", "WScale"} & seen.keys():
        return "the client's"
    own = {4: 1460, 6: 1440}[stage.version]
    if seen.get("MSS") == own and {"SAckOK", "Timestamp", "WScale"} <= seen.keys():
        return "the proxy's own"
    return f"{seen}"


@scenario("window scale, SACK, timestamps that the client sees in the answer", turn=2)
async def options_of_answer(stage):
    await _switch(stage.site.lab.server, on=False)
    try:
        client, _ = await stage.pair()
    finally:
        await _switch(stage.site.lab.server, on=True)
    options = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 100)[_OPTIONS_IN_TCP_INFO]
    words = {0: "the backend's", _EVERY_OPTION: "the proxy's own"}
    return words.get(options & _EVERY_OPTION, f"options {options:#x}")
