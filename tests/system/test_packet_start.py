"""Ready means ready: the first client after `/readyz`, or after a reload's answer, is the pinned tier's already."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest

pytestmark = pytest.mark.root


async def is_first_served(packets, daemon, tier, service):
    """Whether a client that does not wait is served, by this tier."""
    client = await service.call()
    assert await client.echoes()
    await daemon.counts("marchproxy_connections_opened_total", 1, service=service.name, tier=tier)


async def make_ready_for_xdp(lab):
    """Have veth take redirected frames, and the proxy know its client's link-layer address."""
    for namespace in (lab.client, lab.server):
        await namespace.run(["ethtool", "-K", "to_proxy", "gro", "on"])
    await lab.proxy.call(_be_refused, str(lab.client_ip.ip4))


def _be_refused(host):
    with suppress(ConnectionRefusedError):
        socket.create_connection((host, 9), timeout=10).close()


@pytest.mark.parametrize("tier", ["ebpf", "xdp"])
async def test_the_first_client_of_a_service_that_no_other_tier_carries(packets, tier):
    server = await packets.server()
    web, more = (packets.service(name, server, tier=tier) for name in ("web", "more"))
    await make_ready_for_xdp(packets.lab)
    daemon = await packets.start(web, xdp_mode="native")
    await is_first_served(packets, daemon, tier, web)
    packets.write(web, more, xdp_mode="native")
    done = await daemon.run("reload")
    assert done.status == 0, done.errors
    await is_first_served(packets, daemon, tier, more)
