"""Packets between the ends of a wire, and where a driver's own XDP meets them."""

from __future__ import annotations

import struct

import pytest

from marchproxy_core.bpf import Link, Program, ProgramType, XdpMode, count_run_time, who_holds_xdp
from marchproxy_core.testing import until

_XDP_DROP = 1


@pytest.fixture
def drop():
    """An XDP program of two instructions: r0 = XDP_DROP, exit."""
    code = struct.pack("=BBhiBBhi", 0xB7, 0, 0, _XDP_DROP, 0x95, 0, 0, 0)
    with Program.load(code, ProgramType.XDP, name="drop") as program:
        yield program


async def test_packets_go_both_ways(joined):
    assert await joined.carries(b"x" * 1400)


async def test_the_driver_runs_xdp(joined, drop):
    namespace, index = joined.far.namespace, await joined.far.index()
    with (
        count_run_time(),
        await joined.near.receiver() as near,
        await joined.far.receiver() as far,
        await namespace.call(Link.attach_xdp, drop, index, XdpMode.DRIVER),
    ):
        assert [each.mode for each in await namespace.call(who_holds_xdp, index)] == ["driver"]

        async def dropped():
            await near.sendto(b"to be dropped", far.getsockname())
            return drop.info().run_count > 0

        # Not at once: igb takes its link down and up to make room in its buffers.
        await until(dropped, what="a packet that the program drops")
        assert not far.is_readable()
    assert await joined.carries()
