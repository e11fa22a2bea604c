"""On a NIC whose driver has XDP, services go there by themselves.

At the tier's level: emulated, a whole daemon takes longer than it gives a tier to attach.
"""

from __future__ import annotations

import os

import pytest
import trio

from marchproxy_core.bpf import who_holds_xdp
from marchproxy_core.config import Settings
from marchproxy_core.host import gather_host_facts
from marchproxy_core.packet.neighbours import keep_known
from marchproxy_core.packet.network import look_at_network
from marchproxy_core.planner import TierFacts, make_plan
from marchproxy_core.plugins import discover
from marchproxy_core.services import Backend, Endpoint, Service
from marchproxy_core.testing import Subject, until
from marchproxy_core.testing.lab.entering import inside

plugin = pytest.importorskip("marchproxy_xdp.plugin", reason="needs the xdp tier: pip install marchproxy-xdp")

_SERVICE = Service(
    name="web",
    listen=(Endpoint.parse("192.0.2.2:8000"),),
    backends=(Backend(endpoint=Endpoint.parse("192.0.2.3:8000")),),
)
_SETTINGS = Settings(worker_threads=1, ebpf_conn_map_size=1024)  # filling larger tables takes long here
_LONGEST_S = 60
_PAYLOAD = os.urandom(1 << 18)


@pytest.fixture
async def machines(lab, join_interfaces):
    """A proxy on eth0; a client and a backend behind eth1."""
    async with join_interfaces(lab, "eth1", "eth0") as joined:
        await joined.near.namespace.add_address(f"{_SERVICE.backends[0].endpoint.ip}/24", "eth1")
        yield joined


async def test_xdp_is_chosen_without_a_setting(machines):
    def plan():
        host, tiers = gather_host_facts(), discover()
        facts = []
        for name in tiers.names:
            report = tiers.probe(name, host, _SETTINGS)
            verdict = tiers.classify(name, _SERVICE, report)
            facts.append(TierFacts(name=name, report=report, verdicts={"web": verdict}))
        return make_plan(tuple(facts), (_SERVICE,), _SETTINGS)

    made = await machines.far.namespace.call(plan)
    assert made.services[0].chosen == "xdp", made.services[0].decision


async def test_tcp_passes_through_the_driver(machines):
    others, listen = machines.near.namespace, _SERVICE.listen[0]
    backend = _SERVICE.backends[0].endpoint
    listener = await others.listen_tcp(backend.ip, backend.port)

    async def knows_the_backend():
        facts = await trio.to_thread.run_sync(look_at_network, [backend.ip])
        return not await trio.to_thread.run_sync(keep_known, facts)

    async with trio.open_nursery() as nursery, inside(machines.far.namespace):
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        subject = await Subject.of(plugin, _SETTINGS)
        async with subject.running(_SERVICE) as running:
            (holder,) = await trio.to_thread.run_sync(who_holds_xdp, await machines.far.index())
            assert (holder.mode, holder.name) == ("driver", "marchproxy_xdp")
            # igb takes its link down and up when it gets its first program.
            await until(machines.carries, deadline_s=_LONGEST_S, what="a link again")
            control = running.attachment.engine.control
            await until(
                lambda: "eth0" in control.network.names.values() and not running.attachment.left_out,
                deadline_s=_LONGEST_S,
                what="the service taken again, now that the link is back",
            )
            await until(knows_the_backend, deadline_s=_LONGEST_S, what="the backend among the neighbours")
            with trio.fail_after(_LONGEST_S):
                async with await others.connect_tcp(listen.ip, listen.port) as client:
                    await exchange(client)
            stats = await running.stats_of(_SERVICE)
            assert stats.connections_opened == 1
            assert min(stats.bytes_in, stats.bytes_out) > len(_PAYLOAD)
        nursery.cancel_scope.cancel()


async def echo(stream):
    async with stream:
        while data := await stream.receive_some(65536):
            await stream.send_all(data)
        await stream.send_eof()


async def exchange(client):
    """Send a payload and get it back, byte for byte."""
    got = b""
    async with trio.open_nursery() as nursery:

        async def send():
            await client.send_all(_PAYLOAD)
            await client.send_eof()

        nursery.start_soon(send)
        while data := await client.receive_some(65536):
            got += data
    assert got == _PAYLOAD
