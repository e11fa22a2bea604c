"""A service behind VLAN tags is carried in the kernel: the program is on the VLAN's own interface, and sees no tag."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from pyroute2 import IPRoute

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Endpoint, Service
from marchproxy_core.testing import Subject
from marchproxy_core.testing.lab.entering import inside

plugin = pytest.importorskip(
    "marchproxy_ebpf.plugin", reason="needs the ebpf tier: pip install marchproxy-ebpf"
)

_BACKEND = Endpoint.parse("192.0.2.1:8000")
_SERVICE = Service(
    name="web", listen=(Endpoint.parse("198.51.100.2:8000"),), backends=(Backend(endpoint=_BACKEND),)
)
_CLIENT_IP, _LISTEN_IP = "198.51.100.1", "198.51.100.2"
_SETTINGS = Settings(worker_threads=1, ebpf_conn_map_size=1024)  # filling larger tables takes long here
_LONGEST_S = 60


@pytest.fixture(params=[(5,), (7, 5)], ids=["one tag", "two tags"])
async def machines(lab, join_interfaces, request):
    """A proxy on eth2, a backend behind eth3, and a client behind eth3 and these tags, the outer one first."""
    async with join_interfaces(lab, "eth3", "eth2") as joined:
        await joined.near.namespace.call(partial(_tag, "eth3", request.param, _CLIENT_IP))
        await joined.far.namespace.call(partial(_tag, "eth2", request.param, _LISTEN_IP))
        try:
            yield joined
        finally:
            with trio.CancelScope(shield=True):
                for end in (joined.near, joined.far):
                    await end.namespace.call(_untag)


async def test_tcp_passes_through_the_vlans_own_interface(machines):
    listener = await machines.near.namespace.listen_tcp(_BACKEND.ip, _BACKEND.port)
    async with trio.open_nursery() as nursery, inside(machines.far.namespace):
        nursery.start_soon(trio.serve_listeners, _shout_back, [listener])
        subject = await Subject.of(plugin, _SETTINGS)
        async with subject.running(_SERVICE) as running:
            assert running.attachment.interfaces == {"eth2", "tagged"}
            with trio.fail_after(_LONGEST_S):
                listen = _SERVICE.listen[0]
                async with await machines.near.namespace.connect_tcp(listen.ip, listen.port) as client:
                    await client.send_all(b"behind tags")
                    assert await client.receive_some(100) == b"BEHIND TAGS"
            stats = await running.stats_of(_SERVICE)
            assert stats.connections_opened == 1
        nursery.cancel_scope.cancel()


async def _shout_back(stream):
    async with stream:
        await stream.send_all((await stream.receive_some(100)).upper())


def _tag(below, tags, address):
    """Make the interface ``tagged``, with those for the outer tags below it."""
    with IPRoute() as netlink:
        for at, tag in enumerate(tags):
            is_inner = at + 1 == len(tags)
            name = "tagged" if is_inner else f"outer{at}"
            protocol = 0x8100 if is_inner else 0x88A8  # 802.1q, 802.1ad
            link = netlink.link_lookup(ifname=below)[0]
            netlink.link("add", ifname=name, kind="vlan", link=link, vlan_id=tag, vlan_protocol=protocol)
            index = netlink.link_lookup(ifname=name)[0]
            netlink.link("set", index=index, state="up")
            below = name
        netlink.addr("add", index=index, address=address, prefixlen=24)


def _untag():
    with IPRoute() as netlink:
        for name in ("tagged", "outer0"):
            for index in netlink.link_lookup(ifname=name):
                netlink.link("del", index=index)
