"""What the tests of the tier share: a laboratory in which XDP works on veth, and the tier in it."""

from __future__ import annotations

import socket

import attrs
import pytest
import trio
from pyroute2 import IPRoute

from marchproxy_core.bpf import Program, ProgramType, compile_program
from marchproxy_core.config import Settings, XdpMode
from marchproxy_core.testing import Lab, Subject, open_lab_wire, until
from marchproxy_core.testing.servers import receive_exactly
from marchproxy_xdp import plugin

_KNOWN = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, _STALE, _DELAY, _PROBE
_FRONT = "to_client"


@attrs.frozen(eq=False)
class Rig:
    """The laboratory, and what tests do in it."""

    lab: Lab

    async def prepare(self):
        """Have the far ends take redirected frames, and the proxy know its client."""
        for namespace in (self.lab.client, self.lab.server):
            await self.set_offload(namespace, "to_proxy", "gro", on=True)
        await self.introduce()

    async def set_offload(self, namespace, interface, feature, *, on):
        await namespace.run(["ethtool", "-K", interface, feature, "on" if on else "off"])

    async def introduce(self):
        """Have the proxy know the client, as one does that has talked to it before."""
        for ip, family in ((self.lab.front_ip.ip4, socket.AF_INET), (self.lab.front_ip.ip6, socket.AF_INET6)):
            with await self.lab.client.socket(family, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"hello", (str(ip), 9))

        await self.until_known(self.lab.client_ip.ip4, self.lab.client_ip.ip6)

    async def until_known(self, *ips):
        """Wait until the proxy knows these neighbours."""

        async def are_known():
            known = await self.neighbours()
            return all(known.get(str(ip), 0) & _KNOWN for ip in ips)

        await until(are_known, what=f"{ips} among the proxy's neighbours")

    async def neighbours(self):
        """The neighbours that the proxy knows, and their states."""

        def look():
            with IPRoute() as netlink:
                return {one.get_attr("NDA_DST"): one["state"] for one in netlink.get_neighbours()}

        return await self.lab.proxy.call(look)

    async def forget_client(self):
        """Have the proxy forget who the client is."""
        await self.lab.proxy.run(["ip", "neigh", "flush", "dev", _FRONT])

    async def exchange(self, stream, message=b"ping"):
        """Send, and have the same back."""
        async with trio.open_nursery() as nursery:
            with trio.fail_after(20):
                nursery.start_soon(stream.send_all, message)
                assert await receive_exactly(stream, len(message)) == message

    def settings(self, **more):
        """What an operator would have set who wants XDP on veth."""
        return Settings(**{"worker_threads": 1, "xdp_mode": XdpMode.NATIVE, **more})

    async def subject(self, tier=plugin, **more):
        """A tier as this operator has it, probed where the calling thread is."""
        return await Subject.of(tier, self.settings(**more))

    def front(self):
        """Index of the interface towards clients, in the proxy's namespace."""
        return socket.if_nametoindex(_FRONT)


@pytest.fixture
async def rig(lab):
    rig = Rig(lab)
    await rig.prepare()
    return rig


@pytest.fixture
async def wire(lab, rig):
    async with open_lab_wire(lab) as wire:
        yield attrs.evolve(wire, settings=rig.settings())


@pytest.fixture
def stranger():
    """Somebody else's XDP program, which passes everything."""
    code = compile_program("int pass(struct xdp_md *context) { return XDP_PASS; }", functions=["pass"])
    with Program.load(code["pass"], ProgramType.XDP, name="somebodys") as program:
        yield program
