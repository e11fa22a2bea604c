"""ICMP errors, each about one flow: who is told, and by whom."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from contextlib import asynccontextmanager

import trio

from tests.parity.ends import PATIENCE_S, SILENCE_S, receive
from tests.parity.icmp_errors import known_mtu, never_fragment, next_error, tell_errors
from tests.parity.scenario import scenario

_FULL_MTU, _NARROW_MTU = 1500, 1400
_BULK_BYTES = 1 << 18
_FITS_FULL_BYTES = 1440
"""With its headers more than the narrow way takes, and no more than the full one does."""
_PING = {
    4: (socket.AF_INET, socket.IPPROTO_ICMP, 8, 0, 20),
    6: (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, 129, 0),
}
"""Family, protocol, type of request and answer, and bytes before the ICMP header in what a raw socket receives."""


@scenario("a UDP client that is gone when the answer comes", protocol="udp")
async def client_is_gone(stage):
    tell_errors(stage.backend)
    client = await stage.client()
    await client.send(b"hello")
    with trio.fail_after(PATIENCE_S):
        _, peer = await stage.backend.recvfrom(100)
    client.close()
    await stage.backend.sendto(b"too late", peer)
    return f"the backend {_heard(stage, await next_error(stage.backend, SILENCE_S))}"


@scenario("a datagram that arrives with a time to live of 1", protocol="udp")
async def time_exceeded(stage):
    def last_hop(sock):
        tell_errors(sock)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)

    return await _arrives_or_not(stage, await stage.client(prepare=last_hop), b"far?")


async def _arrives_or_not(stage, client, datagram):
    """Send until it arrives or the client hears of it: a packet tier tells no more than 100 errors a second."""
    met = []

    async def arrives():
        await stage.backend.recvfrom(2000)
        met.append("arrives")
        nursery.cancel_scope.cancel()

    async def is_told():
        error = await next_error(client, SILENCE_S)
        met.append(f"the client {_heard(stage, error)}")
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(arrives)
        nursery.start_soon(is_told)
        while True:
            # A datagram above the path's MTU, once known, and the first one after an error, are refused here.
            with contextlib.suppress(OSError):
                await client.send(datagram)
            await trio.sleep(SILENCE_S / 20)
    return met[0]


def _heard(stage, error):
    if error is None:
        return "hears nothing"
    size = f" (the size that fits: {error.mtu})" if error.what == "packet too big" else ""
    return f"hears {error.what}{size}, from {stage.whose(error.offender)}"


@scenario("a ping of the listen address", protocol="udp", alike=True)
async def ping(stage):
    answered = await stage.site.lab.client.call(_ping, stage.front, stage.version)
    return "is answered by the proxy" if answered else "is not answered"


def _ping(ip, version):
    family, protocol, request, answer, before = _PING[version]
    ours = os.urandom(8)
    header = struct.pack("!BBHHH", request, 0, 0, 7, 1)
    checksum = 0 if version == 6 else _checksum(header + ours)  # of ICMPv6 the kernel makes it
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.settimeout(SILENCE_S)
        sock.sendto(struct.pack("!BBHHH", request, 0, checksum, 7, 1) + ours, (ip, 0))
        try:
            while True:
                heard = sock.recv(2000)[before:]
                if heard[0] == answer and heard[8:] == ours:
                    return True
        except TimeoutError:
            return False


def _checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


@scenario("TCP, and the way behind the proxy is narrower (an MTU of 1400)", turn=3)
async def narrow_behind(stage):
    async with _narrowed(stage, "to_server"):
        client, backend = await stage.pair()
        return await _learns(client, backend, "client")


@scenario("TCP, and the way in front of the proxy is narrower (an MTU of 1400)", turn=4)
async def narrow_in_front(stage):
    async with _narrowed(stage, "to_client"):
        client, backend = await stage.pair()
        return await _learns(backend, client, "backend")


@asynccontextmanager
async def _narrowed(stage, interface):
    """Give an interface of the proxy a smaller MTU; at the end nobody remembers it."""
    lab = stage.site.lab
    await lab.proxy.set_mtu(interface, _NARROW_MTU)
    try:
        yield
    finally:
        await lab.proxy.set_mtu(interface, _FULL_MTU)
        for namespace in lab.namespaces:
            await namespace.run(["ip", f"-{stage.version}", "route", "flush", "cache"])


async def _learns(sender, receiver, who):
    assert known_mtu(sender.socket) == _FULL_MTU
    data, arrived = os.urandom(_BULK_BYTES), []

    async def take():
        arrived.append(await receive(receiver, len(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await sender.send_all(data)
    if arrived != [data]:
        return "bytes are lost"
    mtu = known_mtu(sender.socket)
    told = {
        _FULL_MTU: f"not told to the {who}: each side has its own",
        _NARROW_MTU: f"told to the {who} by ICMP",
    }
    return f"every byte arrives; {told.get(mtu, f'path MTU {mtu}')}"


@scenario("an unfragmented datagram, and the way behind the proxy is narrower", protocol="udp", turn=5)
async def datagram_too_big(stage):
    async with _narrowed(stage, "to_server"):
        client = await stage.client(prepare=never_fragment)
        return await _arrives_or_not(stage, client, bytes(_FITS_FULL_BYTES))
