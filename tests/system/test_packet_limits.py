"""What is full refuses and counts: ports, flows, limits, a flood. Who is in goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from pyroute2 import IPRoute
from system_rig import load
from system_rig.flood import flood

from marchproxy_core.testing import until

pytestmark = pytest.mark.root

ANSWER_S = 0.5
"""Who is not served by then is refused: the kernel's tiers say nothing, and the client's SYN comes again after 1 s."""


async def is_refused(service) -> bool:
    """Whether a newcomer gets no answer."""
    with trio.move_on_after(ANSWER_S):
        await service.call()
        return False
    return True


async def drops(daemon, reason):
    """Wait until something was dropped for this reason, and return how many packets."""
    return await daemon.counts_some("marchproxy_drops_total", service="web", tier="ebpf", reason=reason)


@pytest.mark.parametrize(
    ("settings", "options", "reason"),
    [
        ({"nat_port_range": "2000-2015"}, {}, "no_source_port"),
        ({"ebpf_conn_map_size": 16}, {}, "flow_table_full"),
        ({}, {"max_connections": 16}, "max_connections"),
        ({"global_max_connections": 16}, {}, "global_max_connections"),
    ],
)
async def test_the_17th_is_refused_and_counted_and_the_16_go_on(packets, settings, options, reason):
    web = packets.service("web", await packets.server(), **options)
    daemon = await packets.start_on("ebpf", web, idle_timeout=2, **settings)
    clients = [await web.call() for _ in range(16)]
    assert await is_refused(web)
    assert await drops(daemon, reason) >= 1
    for client in clients:
        assert await client.echoes()
    await daemon.counts("marchproxy_connections_active", 16, service="web", tier="ebpf")
    assert await clients.pop().end() == "ended"
    assert await clients.pop().end() == "ended"

    async def serves_again():
        for client in clients:
            assert await client.echoes()
        return not await is_refused(web)

    await until(serves_again, deadline_s=30, what="there is place again")


async def test_flows_above_the_rate_are_refused_and_counted(packets):
    web = packets.service("web", await packets.server(), connection_rate=5)
    daemon = await packets.start_on("ebpf", web)
    served = 0
    while not await is_refused(web):
        served += 1
    assert served >= 6  # a second's worth and one may come at once
    assert await drops(daemon, "connection_rate") >= 1
    assert not all([await is_refused(web) for _ in range(3)])


async def test_a_million_spoofed_syns_cost_no_flow_that_is_there(packets):
    web = packets.service("web", await packets.server())
    daemon = await packets.start_on("ebpf", web, ebpf_conn_map_size=4096, idle_timeout=3)
    await packets.lab.proxy.call(_send_everything_back, str(packets.lab.client_ip.ip4))
    count, before_kb = 1_000_000, _memory_kb(daemon.pid)
    async with load(web) as traffic:
        chunks = [stream.chunks for stream in traffic.streams]
        await packets.lab.proxy.call(flood, "to_client", packets.lab.front_ip.ip4, web.port, count)
        refused = await drops(daemon, "flow_table_full")
        assert packets.flows() <= 4096
        opened = await daemon.metric("marchproxy_connections_opened_total", service="web", tier="ebpf")
        assert refused >= 0.9 * count
        assert refused + opened >= count
        for stream, chunk in zip(traffic.streams, chunks, strict=True):
            assert not stream.fault
            assert stream.chunks > chunk
        await traffic.goes_on()
        assert traffic.failed == []
        assert [stream.fault for stream in traffic.streams if stream.fault] == []
    assert _memory_kb(daemon.pid) - before_kb < 30_000


def _send_everything_back(gateway: str) -> None:
    """Have a way to every client, so that answers are forwarded too."""
    with IPRoute() as netlink:
        netlink.route("add", dst="0.0.0.0/0", gateway=gateway)


def _memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])
