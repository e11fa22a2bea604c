"""Other people's TC programs stay where they are, see what they saw before, and are there when the tier has gone."""

from __future__ import annotations

import socket

import pytest

from marchproxy_core.bpf import (
    Direction,
    Link,
    Map,
    MapSpec,
    MapType,
    Program,
    ProgramType,
    attach_filter,
    compile_program,
    detach_filter,
    filters_on,
)
from marchproxy_core.config import Settings
from marchproxy_core.services import Protocol
from marchproxy_core.testing import Subject, open_lab_wire
from marchproxy_core.testing.laws.traffic import echo_once, service_for
from marchproxy_core.testing.servers import tcp_server
from marchproxy_ebpf import plugin

pytestmark = pytest.mark.root

COUNT_AND_GO_ON = """
#include <marchproxy/bpf_map.h>
int count(struct __sk_buff *skb)
{
    int zero = 0;
    __u64 *seen = bpf_map_lookup_elem(BPF_MAP(0), &zero);
    if (seen)
        __sync_fetch_and_add(seen, 1);
    return -1;
}
"""
FIRST = (0).to_bytes(4, "little")


class Stranger:
    """Somebody's program that counts packets and leaves them to the next one."""

    def __init__(self) -> None:
        self.seen_by = Map.create(MapSpec(name="seen", type=MapType.ARRAY, value_size=8, max_entries=1))
        code = compile_program(COUNT_AND_GO_ON, functions=["count"], name="stranger.c")
        self.program = Program.load(
            code["count"], ProgramType.SCHED_CLS, maps=[self.seen_by], name="stranger"
        )

    @property
    def seen(self) -> int:
        return int.from_bytes(self.seen_by.lookup(FIRST), "little")

    def close(self) -> None:
        self.program.close()
        self.seen_by.close()


@pytest.fixture
def stranger():
    made = Stranger()
    yield made
    made.close()


async def carry_once(wire) -> None:
    async with tcp_server(wire, name=b"hi ") as server:
        service = service_for(wire, server.backend)
        async with (await Subject.of(plugin, Settings(worker_threads=1))).running(service) as running:
            assert await echo_once(wire, service.listen[0], b"there") == b"hi there"
            assert (await running.stats_of(service)).connections_opened == 1


async def test_a_tcx_program_that_was_there_before_sees_every_packet_first(lab, stranger):
    front = await lab.proxy.call(socket.if_nametoindex, "to_client")
    link = await lab.proxy.call(Link.attach_tcx, stranger.program, front)
    async with open_lab_wire(lab) as wire:
        await carry_once(wire)
    assert stranger.seen >= 5  # SYN, ACK, data, FIN, ACK
    assert link.info().interface == front
    link.detach()
    link.close()


async def test_a_filter_of_clsact_sees_what_the_tier_leaves_and_stays(lab, stranger):
    front = await lab.proxy.call(socket.if_nametoindex, "to_client")
    # After ours, where the kernel has no TCX.
    held = await lab.proxy.call(
        lambda: attach_filter(stranger.program, front, name="stranger", priority=30000)
    )
    async with open_lab_wire(lab) as wire:
        await carry_once(wire)
        before = stranger.seen
        with pytest.raises(ConnectionRefusedError):  # no service: the stack's, and so the filter's
            await wire.connect(wire.free_port(Protocol.TCP, 4))
        assert stranger.seen > before
    assert await lab.proxy.call(filters_on, front, Direction.INGRESS) == (held,)
    assert await lab.proxy.call(detach_filter, held)
