"""What the probe says of a host: where XDP works, what it costs, and who is there already."""

from __future__ import annotations

import time

import pytest
import trio
from pyroute2 import IPRoute

from marchproxy_core.bpf import Link, XdpMode
from marchproxy_core.config import Enable, Settings
from marchproxy_core.config import XdpMode as Wish
from marchproxy_core.errors import TierUnavailable
from marchproxy_core.host import gather_host_facts
from marchproxy_core.model import Outcome
from marchproxy_core.planner import TierFacts, make_plan
from marchproxy_core.services import Backend, Endpoint, Service
from marchproxy_core.testing import open_lab_wire
from marchproxy_core.testing.laws.traffic import service_for
from marchproxy_core.testing.servers import tcp_server
from marchproxy_xdp import plugin

pytestmark = pytest.mark.root


async def probe(lab, **settings):
    """Probe in the proxy's namespace."""
    return await lab.proxy.call(lambda: plugin.probe(gather_host_facts(), Settings(**settings)))


def unmet(report):
    return [need for need in report.requirements if need.met is not True]


async def test_veth_is_degraded_and_says_what_it_costs(rig, lab):
    del rig
    report = await probe(lab)
    assert report.outcome is Outcome.DEGRADED
    assert "TSO" in report.reason
    assert "a fifth" in report.reason


@pytest.mark.parametrize(
    ("settings", "pinned"),
    [({"enable": {"xdp": Enable.TRUE}}, None), ({"xdp_mode": Wish.NATIVE}, None), ({}, "xdp")],
)
async def test_an_operator_who_wants_it_gets_it_all_the_same(rig, lab, settings, pinned):
    del rig
    service = Service(
        name="web",
        listen=(Endpoint(lab.front_ip.ip4, 80),),
        backends=(Backend(endpoint=Endpoint(lab.server_ip.ip4, 80)),),
        tier=pinned,
    )
    report = await probe(lab, **settings)
    facts = TierFacts(name="xdp", report=report, verdicts={"web": plugin.classify(service, report)})
    plan = make_plan((facts,), (service,), Settings(**settings))
    assert plan.services[0].chosen == "xdp"


async def test_a_veth_whose_peer_would_lose_frames_is_refused(lab):
    report = await probe(lab, xdp_mode=Wish.NATIVE)
    assert report.outcome is Outcome.REFUSED
    assert "ethtool -K PEER gro on" in unmet(report)[0].fix


async def test_no_nic_keeps_our_tables(rig, lab):
    del rig
    report = await probe(lab, xdp_mode=Wish.HW)
    assert report.outcome is Outcome.REFUSED
    assert "XDP_MODE=native" in unmet(report)[0].fix


async def test_an_interface_that_is_named_must_be_there(rig, lab):
    del rig
    report = await probe(lab, xdp_interface=("to_client", "nowhere"), xdp_mode=Wish.NATIVE)
    assert [need.need for need in unmet(report)] == ["the Ethernet interface nowhere (XDP_INTERFACE)"]


async def test_an_interface_without_xdp_is_refused_where_others_have_it(rig, lab):
    await lab.proxy.run(["ip", "link", "add", "bare", "type", "bridge"])
    await lab.proxy.run(["ip", "link", "set", "bare", "up"])
    named = await probe(lab, xdp_interface=("to_client", "bare"), xdp_mode=Wish.NATIVE)
    assert [need.need for need in unmet(named)] == ["XDP in the driver of bare"]
    any_of_them = await probe(lab, xdp_mode=Wish.NATIVE)
    assert any_of_them.outcome is Outcome.USABLE
    del rig


async def test_it_takes_little_time(rig, lab):
    del rig
    await probe(lab)
    before = time.perf_counter()
    await probe(lab)
    assert time.perf_counter() - before < 0.1  # 50 ms are promised; this machine may be busy


def _occupy(program, how, interface):
    """Put a stranger's program on an interface; return what takes it off again."""
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=interface)[0]
        if how == "link":
            return Link.attach_xdp(program, index, XdpMode.DRIVER).close
        netlink.link("set", index=index, xdp_fd=program.fd)
    return lambda: None


@pytest.mark.parametrize("how", ["link", "netlink"])
async def test_somebody_elses_program_is_named_and_left_alone(rig, lab, stranger, how):
    free = await lab.proxy.call(_occupy, stranger, how, "to_client")
    try:
        report = await probe(lab, xdp_interface=("to_client", "to_server"), xdp_mode=Wish.NATIVE)
        (need,) = unmet(report)
        assert report.outcome is Outcome.REFUSED
        assert f"XDP program {stranger.info().id} 'somebodys'" in need.have
        assert ("held by BPF link" if how == "link" else "put there through netlink") in need.have
        assert (
            "bpftool link detach" if how == "link" else "ip link set dev to_client xdpdrv off"
        ) in need.fix
    finally:
        free()
    del rig


async def test_a_stranger_who_comes_between_probe_and_attach_is_named_too(rig, lab, stranger):
    async with open_lab_wire(lab) as wire, tcp_server(wire) as server:
        subject = await rig.subject(xdp_interface=("to_client", "to_server"))
        _occupy(stranger, "netlink", "to_client")
        service = service_for(wire, server.backend)
        with pytest.raises(BaseExceptionGroup) as raised:
            async with subject.running(service):
                raise AssertionError("it replaced somebody's program")
        assert raised.group_contains(TierUnavailable, match="somebodys")


async def test_a_service_behind_somebody_elses_program_is_left_to_the_next_tier(rig, lab, stranger):
    async with open_lab_wire(lab) as wire, tcp_server(wire) as server:
        subject = await rig.subject()
        _occupy(stranger, "netlink", "to_server")
        async with subject.running(service_for(wire, server.backend)) as running:
            (left,) = running.attachment.left_out
            assert left.service == "web"
            assert "'somebodys'" in left.reason
            assert running.attachment.interfaces == frozenset()
            await trio.lowlevel.checkpoint()
