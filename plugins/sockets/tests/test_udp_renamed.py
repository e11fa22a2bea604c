"""A UDP service that leaves while another takes its address over, as when it is renamed in the rules file."""

from __future__ import annotations

import attrs

from marchproxy_core.model import Assignment, BackendView, Role, ServiceTable
from marchproxy_core.services import Protocol
from marchproxy_core.testing import open_loopback_wire, until
from marchproxy_core.testing.laws.traffic import ask_udp
from marchproxy_core.testing.servers import udp_server


async def test_the_service_that_takes_an_address_over_gets_every_new_client(relaying):
    async with (
        open_loopback_wire() as here,
        udp_server(here, name=b"old ") as old,
        udp_server(here, name=b"new ") as new,
        relaying(old.backend, protocol=Protocol.UDP) as (running, service, wire),
    ):
        with await wire.connect_udp(service.listen[0]) as known:
            assert await ask_udp(known, b"1") == b"old 1"
            renamed = attrs.evolve(service, name="other", backends=(new.backend,))
            leaving = Assignment(service=service, role=Role.DRAINING, backends=())
            coming = Assignment(
                service=renamed,
                role=Role.CHOSEN,
                backends=(BackendView(backend=new.backend),),
                listeners=running.listeners.of(renamed),
            )
            running.table.publish(
                ServiceTable({service.name: leaving, "other": coming}, running.table.current.settings)
            )

            async def taken_over() -> bool:
                with await wire.connect_udp(service.listen[0]) as client:
                    return await ask_udp(client, b"?") == b"new ?"

            await until(taken_over, what="the worker has heard of the change")
            for number in range(20):
                with await wire.connect_udp(service.listen[0]) as client:
                    assert await ask_udp(client, b"%d" % number) == b"new %d" % number
            drops = (await running.stats_of(service)).drops
            assert not drops, f"datagrams for the new service were dropped by the old one: {drops}"
