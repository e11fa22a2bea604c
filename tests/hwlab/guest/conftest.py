"""What the tests in the guest share: its two wires, each with its ends in namespaces of their own.

Interfaces are given back to the machine as they were, since all tests run in one guest.
"""

from __future__ import annotations

import functools
import os
import socket
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from pyroute2 import IPRoute

from marchproxy_core.testing import until

_PATIENCE_S = 0.2


@attrs.frozen(eq=False)
class End:
    """One end of a wire: an interface in a namespace, with an address."""

    namespace: object
    interface: str
    ip: str

    async def index(self):
        """Number of the interface."""
        return await self.namespace.call(_index, self.interface)

    async def receiver(self):
        """Open a UDP socket on the address; the caller closes it."""
        sock = trio.socket.from_stdlib_socket(await self.namespace.socket(kind=socket.SOCK_DGRAM))
        await sock.bind((self.ip, 0))
        return sock


@attrs.frozen(eq=False)
class Joined:
    """Two interfaces on one wire, up, with addresses, and with each other's as permanent neighbours."""

    near: End
    far: End

    async def carries(self, payload=b"over the wire"):
        """Whether a datagram gets from near to far and back; sent again while an interface is busy with itself."""
        with await self.near.receiver() as near, await self.far.receiver() as far:

            async def there_and_back():
                await near.sendto(payload, far.getsockname())
                with trio.move_on_after(_PATIENCE_S):
                    data, peer = await far.recvfrom(len(payload))
                    await far.sendto(data[::-1], peer)
                    return await near.recv(len(payload)) == payload[::-1]
                return False

            await until(there_and_back, what=f"an answer from {self.far.interface} to {self.near.interface}")
            return True


@pytest.fixture(params=[("eth0", "eth1"), ("eth2", "eth3")], ids=["igb", "virtio"])
async def joined(lab, request):
    """One wire, then the other: the first interface with the client, the second with the server."""
    async with join(lab, *request.param) as joined:
        yield joined


@pytest.fixture
def join_interfaces():
    """Join any two interfaces of the machine that are on one wire: ``async with join_interfaces(lab, near, far)``."""
    return join


@asynccontextmanager
async def join(lab, near, far):
    """Move an interface to the client, another to the server, and give both addresses; move them back in the end."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    ends = (End(lab.client, near, "192.0.2.1"), End(lab.server, far, "192.0.2.2"))
    try:
        for end in ends:
            _move(end.interface, end.namespace.path)
        macs = [await end.namespace.call(_settle, end.interface, end.ip) for end in ends]
        for end, other, mac in zip(ends, reversed(ends), reversed(macs), strict=True):
            await end.namespace.call(_pin, end.interface, other.ip, mac)
        for end in ends:
            has_link = functools.partial(end.namespace.call, _has_link, end.interface)
            await until(has_link, what=f"a link of {end.interface}")
        yield Joined(*ends)
    finally:
        with trio.CancelScope(shield=True):
            for end in ends:
                await end.namespace.call(_go_home, end.interface, home)
        os.close(home)


def _move(interface, namespace):
    with IPRoute() as netlink, open(namespace, "rb") as target:
        netlink.link("set", index=_index(interface), net_ns_fd=target.fileno())


def _go_home(interface, home):
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=interface):
            netlink.link("set", index=index, net_ns_fd=home)


def _settle(interface, ip):
    with IPRoute() as netlink:
        index = _index(interface)
        netlink.addr("add", index=index, address=ip, prefixlen=24)
        netlink.link("set", index=index, state="up")
        return netlink.get_links(index)[0].get_attr("IFLA_ADDRESS")


def _pin(interface, ip, mac):
    with IPRoute() as netlink:
        netlink.neigh("add", dst=ip, lladdr=mac, ifindex=_index(interface), state="permanent")


def _has_link(interface):
    with IPRoute() as netlink:
        return netlink.get_links(_index(interface))[0].get_attr("IFLA_OPERSTATE") == "UP"


def _index(interface):
    return socket.if_nametoindex(interface)
