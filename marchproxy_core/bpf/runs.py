"""BPF_PROG_TEST_RUN: a program on a packet of ours, without a wire; and as a generator of packets.

Blocks for as long as the runs take; call it in a thread. A signal ends the runs early, with EINTR.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.bpf.syscall import Command, address, bpf, buffer

if TYPE_CHECKING:
    from marchproxy_core.bpf.programs import Program

LIVE_FRAMES = 1 << 1
"""Flag of an XDP run: what it returns is done to real packets, as redirects (since 5.18)."""

_GROWTH_BYTES = 256
_RUN = struct.Struct("=4I2Q4I2Q3I")
_XDP_CONTEXT = struct.Struct("=6I")


@attrs.frozen(kw_only=True)
class Run:
    """What came out."""

    retval: int
    """What the program returned the last time."""
    data_out: bytes = attrs.field(repr=False)
    ctx_out: bytes = attrs.field(repr=False)
    duration_ns: int
    """Mean time of one run."""


def run_program(
    program: Program,
    data: bytes,
    *,
    ctx_in: bytes = b"",
    repeat: int = 1,
    flags: int = 0,
    batch_size: int = 0,
    cpu: int = 0,
) -> Run:
    """Run a program on a packet.

    Args:
        program: One of type XDP or SCHED_CLS.
        data: The packet, from its Ethernet header on; at least 14 bytes.
        ctx_in: The context, ``struct xdp_md`` or ``struct __sk_buff``; see :func:`xdp_context`.
        repeat: How many times, each time on what the last one left.
        flags: ``LIVE_FRAMES`` or 0.
        batch_size: With ``LIVE_FRAMES``, how many packets are handed on at once, at most 256; 0 for 64.
        cpu: Where to run, for kinds that can choose.

    Raises:
        BpfError: EINVAL: a packet too short, or a context that does not fit it; EINTR.
    """
    # Live packets go away; the kernel refuses to be asked for them (net/bpf/test_run.c).
    out_bytes = 0 if flags & LIVE_FRAMES else len(data) + _GROWTH_BYTES
    data_in, data_out = buffer(data), buffer(out_bytes) if out_bytes else None
    context_in = buffer(ctx_in) if ctx_in else None
    wants_context = bool(ctx_in) and data_out is not None
    context_out = buffer(len(ctx_in)) if wants_context else None
    attributes = _RUN.pack(
        program.fd,
        0,
        len(data),
        out_bytes,
        address(data_in),
        address(data_out),
        repeat,
        0,
        len(ctx_in),
        len(context_out) if context_out is not None else 0,
        address(context_in),
        address(context_out),
        flags,
        cpu,
        batch_size,
    )
    _, left = bpf(Command.PROG_TEST_RUN, attributes, "test run")
    _, retval, _, size, _, _, _, duration_ns, _, context_size, *_ = _RUN.unpack(left.raw)
    return Run(
        retval=retval,
        data_out=data_out.raw[:size] if data_out is not None else b"",
        ctx_out=context_out.raw[:context_size] if context_out is not None else b"",
        duration_ns=duration_ns,
    )


def xdp_context(size_bytes: int, *, interface: int, queue: int = 0) -> bytes:
    """Return ``struct xdp_md`` of a packet that came in there.

    Args:
        size_bytes: Of the packet.
        interface: Index of an interface in this network namespace; one that is up.
        queue: Number of its receive queue.
    """
    return _XDP_CONTEXT.pack(0, size_bytes, 0, interface, queue, 0)
