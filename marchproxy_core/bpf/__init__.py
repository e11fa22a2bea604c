"""BPF: bcc compiles, and what it cannot do goes through bpf(2) and netlink.

Everything here blocks, for microseconds (maps) up to seconds (compiling): call it in a thread. What is about an
interface looks in the network namespace of the calling thread.
"""

from __future__ import annotations

from marchproxy_core.bpf.batches import Batch, delete_many, items, read_batches, update_many
from marchproxy_core.bpf.bpffs import ensure_bpffs, find_bpffs
from marchproxy_core.bpf.compiler import CompileError, compile_program
from marchproxy_core.bpf.instructions import MAP_MARK, InstructionError
from marchproxy_core.bpf.links import Link, LinkInfo, LinkType, XdpMode
from marchproxy_core.bpf.map_types import (
    MapFlags,
    MapInfo,
    MapSpec,
    MapType,
    possible_cpus,
    value_stride,
)
from marchproxy_core.bpf.maps import ANY, EXIST, NOEXIST, Map
from marchproxy_core.bpf.objects import Descriptor
from marchproxy_core.bpf.pins import PinDirectory, PinError, PinMismatch, pin_folder
from marchproxy_core.bpf.programs import (
    XDP_HAS_FRAGS,
    AttachType,
    Program,
    ProgramInfo,
    ProgramRefused,
    ProgramType,
    count_run_time,
)
from marchproxy_core.bpf.requirements import requirements
from marchproxy_core.bpf.runs import LIVE_FRAMES, Run, run_program, xdp_context
from marchproxy_core.bpf.syscall import BpfError
from marchproxy_core.bpf.tc_filters import (
    Direction,
    FilterTaken,
    TcFilter,
    attach_filter,
    detach_filter,
    filters_on,
)
from marchproxy_core.bpf.xdp_holders import XdpHolder, who_holds_xdp

__all__ = [
    "ANY",
    "EXIST",
    "LIVE_FRAMES",
    "MAP_MARK",
    "NOEXIST",
    "XDP_HAS_FRAGS",
    "AttachType",
    "Batch",
    "BpfError",
    "CompileError",
    "Descriptor",
    "Direction",
    "FilterTaken",
    "InstructionError",
    "Link",
    "LinkInfo",
    "LinkType",
    "Map",
    "MapFlags",
    "MapInfo",
    "MapSpec",
    "MapType",
    "PinDirectory",
    "PinError",
    "PinMismatch",
    "Program",
    "ProgramInfo",
    "ProgramRefused",
    "ProgramType",
    "Run",
    "TcFilter",
    "XdpHolder",
    "XdpMode",
    "attach_filter",
    "compile_program",
    "count_run_time",
    "delete_many",
    "detach_filter",
    "ensure_bpffs",
    "filters_on",
    "find_bpffs",
    "items",
    "pin_folder",
    "possible_cpus",
    "read_batches",
    "requirements",
    "run_program",
    "update_many",
    "value_stride",
    "who_holds_xdp",
    "xdp_context",
]
