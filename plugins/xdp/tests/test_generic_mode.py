"""``XDP_MODE=skb`` carries traffic too, where nobody joins packets."""

from __future__ import annotations

import attrs
import pytest

from marchproxy_core.bpf import who_holds_xdp
from marchproxy_core.config import XdpMode
from marchproxy_core.testing import obey
from marchproxy_core.testing.laws import traffic
from marchproxy_core.testing.laws.traffic import service_for
from marchproxy_core.testing.servers import tcp_server
from marchproxy_xdp import plugin

pytestmark = pytest.mark.root


@pytest.fixture
async def plain_wire(rig, lab, wire):
    """The wire without packets larger than the MTU."""
    for namespace, interfaces in (
        (lab.client, ["to_proxy"]),
        (lab.server, ["to_proxy"]),
        (lab.proxy, ["to_client", "to_server"]),
    ):
        for interface in interfaces:
            for feature in ("tso", "gso", "gro"):
                await rig.set_offload(namespace, interface, feature, on=False)
    return attrs.evolve(wire, settings=rig.settings(xdp_mode=XdpMode.SKB))


@pytest.mark.parametrize(
    "law",
    [
        traffic.tcp_flows_as_soon_as_it_started,
        traffic.bulk_arrives_exactly_in_both_directions,
        traffic.udp_answers_each_client,
    ],
    ids=lambda law: law.__name__,
)
async def test_law(law, plain_wire):
    await obey(law, plugin, plain_wire)


async def test_the_program_is_in_the_stack(rig, plain_wire):
    async with (
        tcp_server(plain_wire) as server,
        (await rig.subject(xdp_mode=XdpMode.SKB)).running(service_for(plain_wire, server.backend)),
    ):
        assert [holder.mode for holder in who_holds_xdp(rig.front())] == ["generic"]
