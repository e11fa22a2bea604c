"""What the tests of the tier share: a laboratory in which XDP works, and the tier in it, forced."""

from __future__ import annotations

import socket

import attrs
import pytest
from pyroute2 import IPRoute

from marchproxy_core.config import Settings, XdpMode
from marchproxy_core.testing import open_lab_wire, until

_KNOWN = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, _STALE, _DELAY, _PROBE


async def set_offload(namespace, interface, feature, *, on):
    await namespace.run(["ethtool", "-K", interface, feature, "on" if on else "off"])


def neighbours():
    """The neighbours that the calling thread's namespace knows, and their states."""
    with IPRoute() as netlink:
        return {message.get_attr("NDA_DST"): message["state"] for message in netlink.get_neighbours()}


async def introduce(lab):
    """Have the proxy know the client, as one does that has talked to it before."""
    for ip, family in ((lab.front_ip.ip4, socket.AF_INET), (lab.front_ip.ip6, socket.AF_INET6)):
        with await lab.client.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"hello", (str(ip), 9))

    async def is_known():
        known = await lab.proxy.call(neighbours)
        return all(known.get(str(lab.client_ip.of(version)), 0) & _KNOWN for version in (4, 6))

    await until(is_known, what="the client among the proxy's neighbours")


async def prepare(lab):
    """Have the far ends take redirected frames, and the proxy know its client."""
    for namespace in (lab.client, lab.server):
        await set_offload(namespace, "to_proxy", "gro", on=True)
    await introduce(lab)


@pytest.fixture
def settings():
    """What an operator would have set who wants XDP on veth."""
    return Settings(worker_threads=1, xdp_mode=XdpMode.NATIVE)


@pytest.fixture
async def wire(lab, settings):
    await prepare(lab)
    async with open_lab_wire(lab) as wire:
        yield attrs.evolve(wire, settings=settings)
