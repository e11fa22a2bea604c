"""What becomes of the program and of its flows when something happens to the interface, the program or the daemon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import attrs
import pytest
import trio

from marchproxy_core.bpf import Link, who_holds_xdp
from marchproxy_core.errors import TierFault
from marchproxy_core.testing import until
from marchproxy_core.testing.lab import Dual
from marchproxy_core.testing.laws.traffic import echo_once, service_for
from marchproxy_core.testing.servers import receive_exactly, tcp_server

pytestmark = pytest.mark.root

# Runs the tier in a process of its own until it is ended: listen, backend.
_PROCESS = """
import sys, trio
from marchproxy_core.config import Settings, XdpMode
from marchproxy_core.services import Backend, Endpoint, Service
from marchproxy_core.testing import Subject
from marchproxy_xdp import plugin

async def main(listen, backend):
    service = Service(
        name="web", listen=(Endpoint.parse(listen),), backends=(Backend(endpoint=Endpoint.parse(backend)),)
    )
    subject = await Subject.of(plugin, Settings(worker_threads=1, xdp_mode=XdpMode.NATIVE))
    async with subject.running(service):
        print("running", flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


async def holders(lab):
    """Programs on the proxy's interface towards clients."""

    return await lab.proxy.call(lambda: who_holds_xdp(socket.if_nametoindex("to_client")))


async def start(lab, service):
    """Start a process with the tier, and wait until it runs."""
    process = await lab.proxy.start(
        [sys.executable, "-c", _PROCESS, str(service.listen[0]), str(service.backends[0].endpoint)],
        stdout=subprocess.PIPE,
    )
    with trio.fail_after(30):
        assert await receive_exactly(process.stdout, 8) == b"running\n"
    return process


async def test_flows_go_on_while_nobody_is_there_and_with_the_next(rig, lab, wire):
    async with tcp_server(wire) as server:
        service = service_for(wire, server.backend)
        first = await start(lab, service)
        (program,) = await holders(lab)
        async with await wire.connect(service.listen[0]) as client:
            await rig.exchange(client)
            os.kill(first.pid, signal.SIGKILL)
            with trio.fail_after(10):
                await first.wait()
            await rig.exchange(client)
            assert await echo_once(wire, service.listen[0], b"new") == b"new"
            await start(lab, service)
            (next_program,) = await holders(lab)
            assert next_program.link_id == program.link_id
            assert next_program.program_id != program.program_id
            await rig.exchange(client)
            assert await echo_once(wire, service.listen[0], b"newer") == b"newer"


async def test_an_orderly_end_leaves_nothing(rig, lab, wire):
    async with tcp_server(wire) as server, (await rig.subject()).running(service_for(wire, server.backend)):
        assert await holders(lab) != ()
    assert await holders(lab) == ()


async def test_a_program_that_was_taken_off_is_missed_and_put_back(rig, lab, wire):
    async with tcp_server(wire) as server:
        service = service_for(wire, server.backend)
        async with (await rig.subject()).running(service) as running:
            await running.stats()
            (holder,) = await holders(lab)
            with Link.open_id(holder.link_id) as link:
                link.detach()
            with pytest.raises(TierFault, match="gone from interface to_client"):
                await running.stats()
        async with (await rig.subject()).running(service) as running:
            await running.stats()
            assert await echo_once(wire, service.listen[0], b"again") == b"again"


async def test_another_program_in_our_link_is_seen(rig, lab, wire, stranger):
    async with (
        tcp_server(wire) as server,
        (await rig.subject()).running(service_for(wire, server.backend)) as running,
    ):
        (holder,) = await holders(lab)
        with Link.open_id(holder.link_id) as link:
            link.update(stranger)
        with pytest.raises(TierFault, match="another program"):
            await running.stats()


async def test_an_interface_that_goes_takes_nothing_else_along(rig, lab, wire):
    async with tcp_server(wire) as server:
        service = service_for(wire, server.backend)
        async with (await rig.subject()).running(service) as running:
            assert running.attachment.interfaces == {"to_client", "to_server"}
            await lab.proxy.delete_interface("to_client")

            async def is_missed():
                return running.attachment.interfaces == {"to_server"}

            await until(is_missed, what="a seat without the interface")
            await running.stats()


@pytest.mark.parametrize("named", [(), ("to_client", "to_server")], ids=["any", "named"])
async def test_a_link_that_is_down_for_a_while_keeps_its_program(rig, lab, wire, named):
    async with tcp_server(wire) as server:
        service = service_for(wire, server.backend)
        async with (await rig.subject(xdp_interface=named)).running(service) as running:
            (before,) = await holders(lab)
            control = running.attachment.engine.control
            await lab.client.set_up("to_proxy", False)

            async def has_heard(of_down):
                return ("to_client" in control.network.down.values()) is of_down

            await until(lambda: has_heard(True), what="a link that is down")
            await running.stats()
            await lab.client.set_up("to_proxy", True)
            await until(lambda: has_heard(False), what="a link that is up again")
            assert await holders(lab) == (before,)


async def test_a_far_end_that_would_lose_frames_is_noticed(rig, lab, wire):
    async with (
        tcp_server(wire) as server,
        (await rig.subject()).running(service_for(wire, server.backend)) as running,
    ):
        await running.stats()
        await rig.set_offload(lab.client, "to_proxy", "gro", on=False)
        with pytest.raises(TierFault, match="to_client takes no redirected frames"):
            await running.stats()


async def test_packets_leave_by_the_interface_they_came_in_by(rig, lab, wire):
    await lab.client.add_address("198.18.0.3/24", "to_proxy")
    beside = attrs.evolve(wire, server=Dual("198.18.0.3", "2001:db8:c::3"), open_server=lab.client.socket)
    async with tcp_server(beside) as server:
        service = service_for(wire, server.backend)
        async with (await rig.subject()).running(service) as running:
            assert running.attachment.interfaces == {"to_client"}
            assert await echo_once(wire, service.listen[0], b"round") == b"round"
            assert (await running.stats_of(service)).packets_out > 0


async def test_jumbo_frames_come_through_whole(rig, lab, wire):
    for namespace, interfaces in (
        (lab.client, ["to_proxy"]),
        (lab.proxy, ["to_client", "to_server"]),
        (lab.server, ["to_proxy"]),
    ):
        for interface in interfaces:
            await namespace.set_mtu(interface, 9000)
    message = os.urandom(300_000)
    async with tcp_server(wire) as server:
        service = service_for(wire, server.backend)
        async with (
            (await rig.subject()).running(service) as running,
            await wire.connect(service.listen[0]) as client,
        ):
            await rig.exchange(client, message)
            stats = await running.stats_of(service)
            assert stats.bytes_in / stats.packets_in > 3500  # frames of several pieces
