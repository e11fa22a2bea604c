"""References to maps: those that are marked get their descriptors, all others are refused."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.bpf.instructions import MAP_MARK, InstructionError, relocate

EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)


def load_64_bits(kind, immediate, upper=0, register=1):
    return struct.pack("=BBhiBBhi", 0x18, kind << 4 | register, 0, immediate, 0, 0, 0, upper)


def test_numbers_become_descriptors():
    code = load_64_bits(1, MAP_MARK + 1) + load_64_bits(1, MAP_MARK) + EXIT
    assert relocate(code, [30, 40]) == load_64_bits(1, 40) + load_64_bits(1, 30) + EXIT


def test_a_constant_stays_what_it_is_also_where_it_looks_like_a_mark():
    code = load_64_bits(0, MAP_MARK, upper=MAP_MARK) + EXIT
    assert relocate(code, []) == code


def test_the_second_half_of_a_load_is_no_instruction():
    code = load_64_bits(0, 1, upper=7)[:8] + struct.pack("=BBhi", 0x18, 0x11, 0, 7) + EXIT
    assert relocate(code, []) == code


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (load_64_bits(1, 7), "program sample, instruction 0: need a map by BPF_MAP.n., have descriptor 7"),
        (EXIT + load_64_bits(1, MAP_MARK + 2), "instruction 1: need map 2, have 2 maps"),
        (load_64_bits(1, MAP_MARK - 1), "need a map by BPF_MAP"),
        (load_64_bits(2, MAP_MARK), "have one of kind 2"),
        (EXIT + struct.pack("=BBhi", 0x85, 0x10, 0, -1) + EXIT, "instruction 1: need all functions inlined"),
        (b"", "have 0 bytes"),
        (EXIT[:7], "have 7 bytes"),
    ],
)
def test_what_is_no_map_of_ours_is_refused(code, said):
    with pytest.raises(InstructionError, match=said):
        relocate(code, [30, 40], "program sample")


@given(st.lists(st.binary(min_size=8, max_size=8), min_size=1).map(b"".join))
def test_any_bytes_are_refused_or_come_back_as_long(code):
    with contextlib.suppress(InstructionError):
        assert len(relocate(code, [3])) == len(code)
