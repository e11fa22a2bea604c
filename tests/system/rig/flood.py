"""SYNs of clients that do not exist, each from an address and a port of its own, as fast as the kernel makes them.

A small XDP program writes each one where the interface is to receive it (BPF_F_TEST_XDP_LIVE_FRAMES). Blocks; in
the network namespace of the calling thread.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from pyroute2 import IPRoute

from marchproxy_core.bpf import LIVE_FRAMES, Program, ProgramType, compile_program, run_program, xdp_context

_SOURCE = """
static inline u16 folded(u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

int flood(struct xdp_md *context)
{
    u16 *half = (void *)(unsigned long)context->data;
    if ((void *)(half + HALVES) > (void *)(unsigned long)context->data_end)
        return XDP_ABORTED;
    u32 random = bpf_get_prandom_u32();
    u16 high = 10 | (random & 0xff) << 8, low = random >> 16, port = bpf_get_prandom_u32() | 4;
    WRITE
    half[12] = ~folded(IP_SUM + high + low);
    half[13] = high;
    half[14] = low;
    half[17] = port;
    half[25] = ~folded(TCP_SUM + high + low + port);
    return XDP_PASS;
}
"""
_ETHERNET_BYTES, _IP_BYTES, _TCP_BYTES = 14, 20, 20
_SYN = 0x02


def flood(interface: str, ip: IPv4Address, port: int, count: int) -> None:
    """Have an interface receive so many SYNs for an address, from addresses in 10.0.0.0/8."""
    index = socket.if_nametoindex(interface)
    frame = _frame(_mac(index), ip, port)
    halves = struct.unpack(f"={len(frame) // 2}H", frame)
    pseudo = struct.pack("!4s4sBBH", bytes(4), ip.packed, 0, socket.IPPROTO_TCP, _TCP_BYTES)
    source = _SOURCE.replace("WRITE", " ".join(f"half[{at}] = {value};" for at, value in enumerate(halves)))
    code = compile_program(
        source,
        functions=["flood"],
        name="flood.c",
        defines={
            "HALVES": len(halves),
            "IP_SUM": _sum(frame[_ETHERNET_BYTES : _ETHERNET_BYTES + _IP_BYTES]),
            "TCP_SUM": _sum(pseudo + frame[_ETHERNET_BYTES + _IP_BYTES :]),
        },
    )
    with Program.load(code["flood"], ProgramType.XDP, maps=(), name="flood") as program:
        context = xdp_context(len(frame), interface=index)
        run_program(program, frame, ctx_in=context, repeat=count, flags=LIVE_FRAMES)


def _frame(mac: bytes, ip: IPv4Address, port: int) -> bytes:
    """Return one without source and checksums."""
    length = _IP_BYTES + _TCP_BYTES
    ethernet = mac + b"\x02\x00\x00\x00\x00\x01" + b"\x08\x00"
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_TCP, 0, bytes(4), ip.packed
    )
    return ethernet + header + struct.pack("!HHIIBBHHH", 0, port, 1, 0, 5 << 4, _SYN, 65535, 0, 0)


def _sum(data: bytes) -> int:
    return sum(struct.unpack(f"={len(data) // 2}H", data))


def _mac(index: int) -> bytes:
    with IPRoute() as netlink:
        (link,) = netlink.get_links(index)
        return bytes.fromhex(str(link.get_attr("IFLA_ADDRESS")).replace(":", ""))
