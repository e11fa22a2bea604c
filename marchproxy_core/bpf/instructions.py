"""BPF instructions as bcc hands them out, and the maps that they refer to. Pure.

bcc compiles ``bpf_pseudo_fd(1, n)`` into a 64-bit load whose immediate the kernel takes for a map's descriptor. Our
sources say MAP_MARK + number there, since descriptors are not known when a program is compiled, and cached.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from marchproxy_core.errors import MarchProxyError

SIZE_BYTES = 8
MAP_MARK = 0x4D50_0000
"""Added to a map's number in C; no descriptor is as large."""
_MOST_MAPS = 1 << 8

_INSTRUCTION = struct.Struct("=BBhi")  # code, registers, offset, immediate
_LOAD_64_BITS = 0x18  # BPF_LD | BPF_IMM | BPF_DW, two instructions long
_PSEUDO_MAP_FD = 1
_CALL = 0x85  # BPF_JMP | BPF_CALL
_PSEUDO_CALL = 1


class InstructionError(MarchProxyError):
    """The instructions cannot be loaded as they are."""


def relocate(instructions: bytes, descriptors: Sequence[int], what: str = "program") -> bytes:
    """Put the maps' descriptors in the place of their numbers.

    Args:
        instructions: As :func:`compiler.compile_program` returns them.
        descriptors: Of the maps, by number.
        what: The program, for errors.

    Raises:
        InstructionError: A reference to a map without a number, or with one that is not there; a call of a
            function, which bcc leaves without a target; or no instructions.
    """
    if not instructions or len(instructions) % SIZE_BYTES:
        raise InstructionError(f"{what}: need whole instructions of 8 bytes, have {len(instructions)} bytes")
    code = bytearray(instructions)
    at = 0
    while at < len(code):
        opcode, registers, offset, immediate = _INSTRUCTION.unpack_from(code, at)
        if opcode == _CALL and registers >> 4 == _PSEUDO_CALL:
            raise InstructionError(
                f"{what}, instruction {at // SIZE_BYTES}: need all functions inlined, have a call of one"
            )
        if opcode != _LOAD_64_BITS:
            at += SIZE_BYTES
            continue
        if registers >> 4:
            descriptor = _descriptor(
                registers >> 4, immediate, descriptors, f"{what}, instruction {at // SIZE_BYTES}"
            )
            _INSTRUCTION.pack_into(code, at, opcode, registers, offset, descriptor)
        at += 2 * SIZE_BYTES
    return bytes(code)


def _descriptor(kind: int, immediate: int, descriptors: Sequence[int], where: str) -> int:
    if kind != _PSEUDO_MAP_FD:
        raise InstructionError(f"{where}: need a reference to a map by BPF_MAP(n), have one of kind {kind}")
    number = immediate - MAP_MARK
    if not 0 <= number < _MOST_MAPS:
        raise InstructionError(
            f"{where}: need a map by BPF_MAP(n), have descriptor {immediate} - fix: don't use bcc's table macros"
        )
    if number >= len(descriptors):
        raise InstructionError(f"{where}: need map {number}, have {len(descriptors)} maps")
    return descriptors[number]
