"""Programs on real interfaces: packets meet them, replacing loses none, strangers are named and left alone."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys

import pytest
import trio
from pyroute2 import IPRoute

from marchproxy_core.bpf import (
    LIVE_FRAMES,
    BpfError,
    Direction,
    FilterTaken,
    Link,
    LinkType,
    Map,
    MapSpec,
    MapType,
    Program,
    ProgramType,
    XdpMode,
    attach_filter,
    detach_filter,
    filters_on,
    run_program,
    who_holds_xdp,
)
from marchproxy_core.testing.census import ResourceCensus, assert_nothing_leaked
from marchproxy_core.testing.pytest_plugin import leave_out
from marchproxy_core.testing.waiting import until

pytestmark = pytest.mark.root

PORT = 7000
DATAGRAMS = 200
TO_PROXY, TO_CLIENT = "to_proxy", "to_client"


@pytest.fixture
def counts(opened):
    return opened(Map.create(MapSpec(name="counts", type=MapType.ARRAY, value_size=8, max_entries=3)))


@pytest.fixture
def load(opened, compiled, counts):
    def load(function, kind=ProgramType.XDP, **more):
        code = compiled(function, **more)
        return opened(Program.load(code, kind, maps=[counts], name=function))

    return load


def count(counts, slot):
    return struct.unpack("=Q", counts.lookup(struct.pack("=I", slot)))[0]


def index(interface):
    return socket.if_nametoindex(interface)


async def send(lab, datagrams=DATAGRAMS):
    """Have the client send datagrams to the proxy, where nobody needs to listen."""
    with await lab.client.socket(kind=socket.SOCK_DGRAM) as sock:
        for _ in range(datagrams):
            sock.sendto(b"hello", (str(lab.front_ip.ip4), PORT))
            await trio.lowlevel.checkpoint()


async def counted(counts, least, slots=(0, 1)):
    async def enough():
        return sum(count(counts, slot) for slot in slots) >= least

    await until(enough, what=f"{least} packets counted")


@pytest.mark.parametrize("mode", [XdpMode.ANY, XdpMode.DRIVER, XdpMode.GENERIC])
async def test_an_xdp_link_meets_every_packet_until_it_is_closed(lab, load, counts, mode):
    program = load("pass_in_slot_0")
    interface = await lab.proxy.call(index, TO_CLIENT)
    link = await lab.proxy.call(Link.attach_xdp, program, interface, mode)
    with link:
        info = link.info()
        assert (info.type, info.program_id, info.interface) == (
            LinkType.XDP,
            program.info().id,
            interface,
        )
        await send(lab)
        await counted(counts, DATAGRAMS)
        (holder,) = await lab.proxy.call(who_holds_xdp, interface)
        assert holder.link_id == info.id
        assert holder.mode == ("generic" if mode == XdpMode.GENERIC else "driver")
    assert await lab.proxy.call(who_holds_xdp, interface) == ()


async def test_a_program_is_replaced_under_traffic_and_no_packet_is_missed(lab, load, counts):
    first, second = load("pass_in_slot_0"), load("pass_in_slot_1")
    interface = await lab.proxy.call(index, TO_CLIENT)
    receiver = await lab.proxy.socket(kind=socket.SOCK_DGRAM)
    with receiver, await lab.proxy.call(Link.attach_xdp, first, interface) as link:
        receiver.bind((str(lab.front_ip.ip4), PORT))
        for round in range(DATAGRAMS):
            await send(lab, 1)
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(receiver)
            assert receiver.recv(100) == b"hello"
            link.update(*((second, first) if round % 2 == 0 else (first, second)))
        assert min(count(counts, 0), count(counts, 1)) >= DATAGRAMS // 2
        with pytest.raises(BpfError) as refused:
            link.update(first, old=second)
        assert refused.value.errno == errno.EPERM
        assert link.info().program_id == first.info().id


async def test_a_detached_link_is_defunct(lab, load):
    interface = await lab.proxy.call(index, TO_CLIENT)
    program = load("pass_in_slot_0")
    with await lab.proxy.call(Link.attach_xdp, program, interface) as link:
        link.detach()
        assert link.info().interface == 0
        assert await lab.proxy.call(who_holds_xdp, interface) == ()
        with pytest.raises(BpfError, match="ENOLINK"):
            link.update(program)


async def test_a_link_outlives_its_interface(lab, load):
    interface = await lab.proxy.call(index, TO_CLIENT)
    with await lab.proxy.call(Link.attach_xdp, load("pass_in_slot_0"), interface) as link:
        await lab.proxy.delete_interface(TO_CLIENT)
        assert link.info().interface == 0
    with pytest.raises(OSError, match="No such device") as gone:
        await lab.proxy.call(who_holds_xdp, interface)
    assert gone.value.errno == errno.ENODEV


@pytest.mark.parametrize(
    ("function", "named", "dispatcher"),
    [("pass_in_slot_0", "pass_in_slot_0", False), ("pass_in_slot_1", "xdp_dispatcher", True)],
)
async def test_somebody_elses_program_is_named_and_never_replaced(
    lab, compiled, counts, opened, function, named, dispatcher
):
    theirs = opened(Program.load(compiled(function), ProgramType.XDP, maps=[counts], name=named))
    ours = opened(Program.load(compiled("drop_in_slot_2"), ProgramType.XDP, maps=[counts], name="ours"))
    interface = await lab.proxy.call(index, TO_CLIENT)

    def put_there_by_netlink():
        with IPRoute() as netlink:
            netlink.link("set", index=interface, xdp_fd=theirs.fd)

    await lab.proxy.call(put_there_by_netlink)
    with pytest.raises(BpfError) as refused:
        await lab.proxy.call(Link.attach_xdp, ours, interface)
    assert refused.value.errno == errno.EBUSY
    (holder,) = await lab.proxy.call(who_holds_xdp, interface)
    assert (holder.name, holder.program_id, holder.link_id) == (named, theirs.info().id, None)
    assert holder.is_dispatcher is dispatcher
    shown = f"XDP program {theirs.info().id} '{named}'" + (" (libxdp's dispatcher)" if dispatcher else "")
    assert str(holder) == f"{shown} in driver mode, put there through netlink"


async def test_a_killed_process_loses_its_link(lab, load, counts):
    program = load("pass_in_slot_0")
    interface = await lab.proxy.call(index, TO_CLIENT)
    # The child has the only descriptor of the link.
    script = (
        "import sys; from marchproxy_core.bpf import Link, Program\n"
        "link = Link.attach_xdp(Program.open_id(int(sys.argv[1])), int(sys.argv[2]))\n"
        "print('attached', flush=True); sys.stdin.read()"
    )
    child = await lab.proxy.start(
        [sys.executable, "-c", script, str(program.info().id), str(interface)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with trio.fail_after(20):
        assert await child.stdout.receive_some() != b""
    assert len(await lab.proxy.call(who_holds_xdp, interface)) == 1
    child.send_signal(signal.SIGKILL)
    await child.wait()

    async def free():
        return await lab.proxy.call(who_holds_xdp, interface) == ()

    await until(free, what="the interface is free again")


@pytest.mark.parametrize("egress", [False, True])
async def test_a_tcx_link_meets_every_packet_until_it_is_closed(lab, load, counts, egress):
    first, second = (
        load(function, ProgramType.SCHED_CLS) for function in ("filter_in_slot_0", "filter_in_slot_1")
    )
    namespace, name = (lab.client, TO_PROXY) if egress else (lab.proxy, TO_CLIENT)
    interface = await namespace.call(index, name)

    def attach(program, place):
        return Link.attach_tcx(program, interface, first=place == "first", egress=egress)

    try:
        link = await namespace.call(attach, first, "last")
    except BpfError as error:
        if error.errno == errno.EINVAL:
            leave_out(f"needs Linux 6.6 for TCX links, have {os.uname().release}")
        raise
    with link, await namespace.call(attach, second, "first") as before:
        assert (link.info().type, link.info().interface) == (LinkType.TCX, interface)
        await send(lab)
        await counted(counts, DATAGRAMS, slots=[0])
        await counted(counts, DATAGRAMS, slots=[1])
        with pytest.raises(BpfError, match="EEXIST"):
            before.update(first, second)
        third = load("filter_in_slot_0", ProgramType.SCHED_CLS)
        before.update(third, second)
        assert before.info().program_id == third.info().id


@pytest.mark.parametrize("direction", Direction)
async def test_a_filter_meets_every_packet_is_replaced_and_leaves_nothing(lab, load, counts, direction):
    first, second = (
        load(function, ProgramType.SCHED_CLS) for function in ("filter_in_slot_0", "filter_in_slot_1")
    )
    egress = direction is Direction.EGRESS
    namespace, name = (lab.client, TO_PROXY) if egress else (lab.proxy, TO_CLIENT)
    interface = await namespace.call(index, name)
    before = await namespace.call(qdiscs, interface)
    held = await namespace.call(attach_filter, first, interface, direction)
    assert await namespace.call(filters_on, interface, direction) == (held,)
    await send(lab)
    await counted(counts, DATAGRAMS, slots=[0])
    again = await namespace.call(attach_filter, second, interface, direction)
    assert again == held
    assert not again.made_qdisc
    await send(lab)
    await counted(counts, DATAGRAMS, slots=[1])
    assert await namespace.call(detach_filter, held)
    assert not await namespace.call(detach_filter, held)
    assert await namespace.call(qdiscs, interface) == before


def qdiscs(interface):
    with IPRoute() as netlink:
        return sorted(qdisc.get_attr("TCA_KIND") for qdisc in netlink.get_qdiscs(interface))


async def test_other_filters_and_their_qdisc_are_left_alone(lab, load):
    program = load("filter_in_slot_0", ProgramType.SCHED_CLS)
    interface = await lab.proxy.call(index, TO_CLIENT)
    ours = await lab.proxy.call(attach_filter, program, interface)
    assert ours.made_qdisc

    def attach_theirs():
        return attach_filter(program, interface, name="theirs", priority=1)

    theirs = await lab.proxy.call(attach_theirs)
    assert await lab.proxy.call(filters_on, interface, Direction.INGRESS) == (theirs, ours)
    assert await lab.proxy.call(detach_filter, ours)
    assert await lab.proxy.call(filters_on, interface, Direction.INGRESS) == (theirs,)
    assert "clsact" in await lab.proxy.call(qdiscs, interface)


async def test_a_filter_in_our_place_is_refused_by_name(lab, load):
    program = load("filter_in_slot_0", ProgramType.SCHED_CLS)
    interface = await lab.proxy.call(index, TO_CLIENT)

    def attach_theirs():
        return attach_filter(program, interface, name="theirs")

    theirs = await lab.proxy.call(attach_theirs)
    with pytest.raises(FilterTaken, match="have a filter bpf 'theirs' there"):
        await lab.proxy.call(attach_filter, program, interface)
    assert await lab.proxy.call(filters_on, interface, Direction.INGRESS) == (theirs,)


async def test_a_filter_on_no_interface_is_an_error(lab, load):
    program = load("filter_in_slot_0", ProgramType.SCHED_CLS)
    with pytest.raises(OSError, match="clsact on interface 999") as refused:
        await lab.proxy.call(attach_filter, program, 999)
    assert refused.value.errno == errno.ENODEV


async def test_live_frames_arrive_at_the_other_end(lab, load, counts):
    frames = 1 << 14
    here, there = (
        await lab.client.call(index, TO_PROXY),
        await lab.proxy.call(index, TO_CLIENT),
    )
    sender = load("send_out", interface=here)
    packet = bytes.fromhex("0200000000010200000000020800") + bytes(46)

    def generate():
        return run_program(sender, packet, repeat=frames, flags=LIVE_FRAMES, batch_size=64)

    # The program at the far end also switches NAPI on, without which a veth loses redirected frames.
    with await lab.proxy.call(Link.attach_xdp, load("drop_in_slot_2"), there):
        run = await lab.client.call(generate)
        await counted(counts, frames, slots=[2])
    assert run.data_out == b""


async def test_nothing_is_leaked(lab, compiled):
    interface = await lab.proxy.call(index, TO_CLIENT)
    code = compiled("filter_in_slot_0"), compiled("pass_in_slot_0"), compiled("read_beyond")
    spec = MapSpec(name="counts", type=MapType.ARRAY, value_size=8, max_entries=3)

    def use_everything_once():
        with (
            Map.create(spec) as counts,
            Program.load(code[0], ProgramType.SCHED_CLS, maps=[counts], name="filter") as packet_filter,
            Program.load(code[1], ProgramType.XDP, maps=[counts], name="pass") as program,
        ):
            with Link.attach_xdp(program, interface) as link:
                link.update(program)
                assert len(who_holds_xdp(interface)) == 1
            detach_filter(attach_filter(packet_filter, interface))
            with pytest.raises(BpfError):
                Program.load(code[2], ProgramType.XDP, maps=[counts], name="refused")
            with pytest.raises(BpfError):
                Link.attach_xdp(packet_filter, interface)

    await lab.proxy.call(use_everything_once)  # imports, and caches that stay open
    before = ResourceCensus.take()
    for _ in range(3):
        await lab.proxy.call(use_everything_once)
    await assert_nothing_leaked(before)
