"""The packet tiers on the oldest kernel: clsact in place of TCX, and no word on which drivers have XDP."""

from __future__ import annotations

import importlib
import socket
from contextlib import suppress

import pytest

from marchproxy_core.config import Settings, XdpMode
from marchproxy_core.testing import Subject, open_lab_wire
from marchproxy_core.testing.laws.traffic import echo_once, service_for
from marchproxy_core.testing.servers import tcp_server

_SETTINGS = Settings(worker_threads=1, ebpf_conn_map_size=1024, xdp_mode=XdpMode.NATIVE)
"""Filling larger tables takes long here."""


@pytest.mark.parametrize("tier", ["ebpf", "xdp"])
async def test_tcp_passes(lab, tier):
    plugin = importlib.import_module(f"marchproxy_{tier}.plugin")
    for namespace in (lab.client, lab.server):  # else veth takes no redirected frames
        await namespace.run(["ethtool", "-K", "to_proxy", "gro", "on"])
    await lab.proxy.call(_get_to_know, str(lab.client_ip.ip4))
    async with open_lab_wire(lab) as wire, tcp_server(wire, name=b"hi ") as server:
        service = service_for(wire, server.backend)
        async with (await Subject.of(plugin, _SETTINGS)).running(service) as running:
            assert await echo_once(wire, service.listen[0], b"there") == b"hi there"
            stats = await running.stats_of(service)
            assert (stats.connections_opened, running.attachment.left_out) == (1, ())


def _get_to_know(host):
    """Have the kernel find out a link-layer address, without which XDP leaves the client to a lower tier."""
    with suppress(ConnectionRefusedError):
        socket.create_connection((host, 9), timeout=60).close()
