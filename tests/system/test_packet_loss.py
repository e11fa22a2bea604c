"""Nothing is lost on the way down and up again: the TC program removed, the daemon killed, replaced, upgraded."""

from __future__ import annotations

import re

import pytest
import trio
from system_rig import load
from system_rig.packet_site import HOOKS

from marchproxy_core.packet.left_behind import forwarding_of
from marchproxy_core.testing import until

pytestmark = pytest.mark.root

RETIRING_S = 0.9
"""Less than the pause after a tier's first failure."""


async def everything(packets, **settings):
    """A TCP and a UDP service on the ebpf tier."""
    web = packets.service("web", await packets.server())
    echo = packets.service("echo", await packets.datagram_server(), protocol="udp")
    daemon = await packets.start_on("ebpf", web, echo, **settings)
    return daemon, web, echo


async def test_a_veth_host_uses_ebpf_without_a_setting_and_explains_it(packets):
    daemon, web, _ = await everything(packets)
    assert await web.visit() == "a"
    await daemon.counts("marchproxy_connections_opened_total", 1, service="web", tier="ebpf")
    assert await daemon.metric("marchproxy_connections_opened_total", service="web", tier="sockets") == 0
    told = await daemon.run("explain", "web")
    assert told.status == 0, told.errors
    assert "-> ebpf" in told.output
    assert re.search(r"- xdp +(refused|degraded): .*veth", told.output)
    assert re.search(r"sockets +tcp bytes are relayed as they are; ebpf ranks higher", told.output)


async def test_a_program_removed_by_hand_costs_no_new_connection_and_is_put_back(packets):
    daemon, web, _ = await everything(packets)
    async with load(web, streams=0) as traffic:
        removed = trio.current_time()
        packets.detach("to_client")
        await daemon.told("tier.demoted", tier="ebpf")
        await traffic.goes_on()
        await daemon.counts_some("marchproxy_connections_opened_total", service="web", tier="sockets")
        await packets.carried_by(daemon, "ebpf", web)
        await traffic.join()
        await traffic.goes_on()
        # What was just being opened when the program went has nobody who knows it.
        assert [one for one in traffic.failed if one[0] > removed] == []
    assert await daemon.metric("marchproxy_fallbacks_total", **{"from": "ebpf", "to": "sockets"}) == 2


async def test_a_killed_daemon_is_not_missed_and_the_next_one_takes_over(packets):
    daemon, web, echo = await everything(packets)
    async with load(web, echo) as traffic:
        packets.kill(daemon)
        await daemon.exit_status()
        await traffic.goes_on()
        daemon = await packets.start_on("ebpf", web, echo)
        await traffic.goes_on()
        traffic.lost_nothing()
        await counters_are_sane(daemon, traffic)
    await packets.stop(daemon)
    assert packets.pinned() == []
    assert await packets.lab.proxy.call(forwarding_of, "lo") == {"ipv4": "0\n", "ipv6": "0\n"}


async def test_kept_attached_it_forwards_without_a_daemon_and_the_next_one_takes_over(packets):
    packets.options = ("--keep-attached",)
    daemon, web, echo = await everything(packets)
    async with load(web, echo) as traffic:
        await packets.stop(daemon)
        assert daemon.events("tables.kept")
        assert daemon.events("drain.finished"), "nobody waits for flows that go on"
        await traffic.goes_on()
        packets.options = ()
        daemon = await packets.start_on("ebpf", web, echo)
        await traffic.goes_on()
        traffic.lost_nothing()
        await counters_are_sane(daemon, traffic)
    await packets.stop(daemon)
    assert packets.pinned() == []


async def counters_are_sane(daemon, traffic):
    """Those of a daemon that took over, while the traffic goes on."""
    for service, active in (("web", len(traffic.streams)), ("echo", 1)):
        opened = await daemon.metric("marchproxy_connections_opened_total", service=service)
        assert 0 <= opened <= traffic.served
        now = await daemon.metric("marchproxy_connections_active", service=service)
        assert active <= now <= active + opened + 1
    drops = (await daemon.ask("/metrics")).text
    assert await daemon.metric("marchproxy_drops_total") == 0, drops


async def flows_end_last(daemon, traffic):
    """See flows go on while their tables retire, and newcomers served meanwhile; return why they retire."""
    await daemon.told("tables.retired")
    chunks = [one.chunks for one in traffic.streams]

    def are_discarded():
        faults = [one.fault for one in traffic.streams if one.fault]
        discarded = bool(daemon.events("tables.discarded"))
        assert discarded or not faults
        return discarded

    await until(are_discarded, what="the old tables are gone")
    assert all(one.chunks > before for one, before in zip(traffic.streams, chunks, strict=True))
    assert traffic.failed == []
    (retired,) = daemon.events("tables.retired")
    return retired["reason"]


async def test_other_sizes_after_a_kill_let_the_flows_end_first(packets):
    daemon, web, echo = await everything(packets, drain_timeout=RETIRING_S)
    async with load(web, echo) as traffic:
        packets.kill(daemon)
        await daemon.exit_status()
        packets.write(web, echo, ebpf_conn_map_size=1024)
        daemon = await packets.launch()
        assert await flows_end_last(daemon, traffic) == "keys: max_entries 131072, want 2048"
        await daemon.counts_some("marchproxy_connections_opened_total", service="web", tier="sockets")
        await packets.carried_by(daemon, "ebpf", web, echo)
        await traffic.join()
        await traffic.goes_on()
        assert traffic.failed == []
    await packets.stop(daemon)
    assert packets.pinned() == []


async def test_another_schema_after_a_kill_lets_the_flows_end_first(packets):
    daemon, web, echo = await everything(packets, drain_timeout=RETIRING_S)
    async with load(web, echo) as traffic:
        packets.kill(daemon)
        await daemon.exit_status()
        # As a daemon of another version would have left them.
        another = packets.pins.with_name(f"0-{packets.pins.name.partition('-')[2]}")
        another.mkdir(mode=0o700)
        for pin in list(packets.pins.iterdir()):
            pin.rename(another / pin.name)
        daemon = await packets.launch()
        assert "those of schema 0" in await flows_end_last(daemon, traffic)
        await packets.carried_by(daemon, "ebpf", web, echo)
        await traffic.goes_on()
        assert traffic.failed == []
    assert not another.exists()


async def test_a_daemon_that_is_not_to_use_the_kernel_removes_what_a_killed_one_left(packets):
    daemon, web, echo = await everything(packets)
    packets.kill(daemon)
    await daemon.exit_status()
    daemon = await packets.start(web, echo, enable_ebpf=False)
    await daemon.told("tables.discarded", reason="no tier of this daemon uses them")
    assert packets.pinned() == []
    assert await web.visit() == "a"
    await daemon.counts("marchproxy_connections_opened_total", 1, service="web", tier="sockets")


async def test_a_second_daemon_says_who_has_the_tables_and_serves_by_sockets(packets):
    daemon, web, _ = await everything(packets)
    other = packets.service("other", await packets.server("b"))
    second = await packets.start(other, admin_listen=f"unix:{packets.directory / 'second.sock'}")
    assert await other.visit() == "b"
    assert await second.metric("marchproxy_connections_opened_total", service="other", tier="sockets") == 1
    told = await second.run("explain", "other")
    assert f"another daemon has it (marchproxy, pid {daemon.pid})" in told.output
    assert await web.visit() == "a"
    assert packets.is_in_kernel(web, HOOKS["ebpf"])
