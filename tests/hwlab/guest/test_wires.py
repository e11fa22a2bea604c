"""Packets between the ends of a wire, and where a driver's own XDP meets them."""

from __future__ import annotations

import socket
import struct

import pytest

from marchproxy_core.bpf import Link, Program, ProgramType, XdpMode, count_run_time, who_holds_xdp

_XDP_PASS = 2


@pytest.fixture
def program():
    """An XDP program of two instructions: r0 = XDP_PASS, exit."""
    code = struct.pack("=BBhiBBhi", 0xB7, 0, 0, _XDP_PASS, 0x95, 0, 0, 0)
    with Program.load(code, ProgramType.XDP, name="pass") as program:
        yield program


async def test_packets_go_both_ways(joined):
    assert await joined.carries(b"x" * 1400)


@pytest.mark.parametrize(("near", "far"), [("eth0", "eth1"), ("eth2", "eth3")], ids=["igb", "virtio"])
async def test_the_driver_runs_xdp(lab, join_interfaces, program, near, far):
    # Attached while the interface is down: igb takes a running one down and up, which takes seconds.
    index = socket.if_nametoindex(far)
    with count_run_time(), Link.attach_xdp(program, index, XdpMode.DRIVER):
        assert [holder.mode for holder in who_holds_xdp(index)] == ["driver"]
        async with join_interfaces(lab, near, far) as joined:
            assert await joined.carries()
        assert program.info().run_count > 0
