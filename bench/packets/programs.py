"""The programs of ``programs.c``, compiled and loaded. Blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marchproxy_core.bpf import Map, MapSpec, MapType, Program, ProgramType, compile_program

COUNT = MapSpec(name="count", type=MapType.PERCPU_ARRAY, value_size=16, max_entries=1)
"""``struct count``, one for each CPU."""
_SOURCE = Path(__file__).with_name("programs.c")
_FUNCTIONS = ("generate", "count_and_drop", "drop", "redirect")


def load(function: str, maps: Sequence[Map]) -> Program:
    """Load one of the XDP programs on its maps; the caller closes it.

    Raises:
        TierUnavailable: bcc or the kernel's headers are missing.
        BpfError: The kernel does not take it.
    """
    code = compile_program(_SOURCE.read_text(encoding="ascii"), functions=_FUNCTIONS, name=_SOURCE.name)
    return Program.load(code[function], ProgramType.XDP, maps=maps, name=function)


def packets(count: Map) -> int:
    """Return how many packets the CPUs counted together."""
    value = count.lookup(bytes(4))
    assert value is not None  # an array has every place
    return sum(int.from_bytes(one[:8], "little") for one in count.split(value))
