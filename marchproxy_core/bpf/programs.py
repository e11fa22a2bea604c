"""A program in the kernel: loaded, described, tried out. Owns its descriptor.

Loading and test runs block; call them in a thread.
"""

from __future__ import annotations

import enum
import errno
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import attrs

from marchproxy_core.bpf.instructions import SIZE_BYTES, relocate
from marchproxy_core.bpf.objects import Descriptor, open_by_id, open_pinned, read_info
from marchproxy_core.bpf.syscall import BpfError, Command, address, bpf, buffer

if TYPE_CHECKING:
    import os

    from marchproxy_core.bpf.maps import Map

XDP_HAS_FRAGS = 1 << 5
"""Flag for :meth:`Program.load`: the program takes packets of several buffers (since 5.18)."""

_NAME_BYTES = 15
_LOAD = struct.Struct("=2I2Q2IQ2I16s2I")
_INFO_BYTES = 232
_INFO = struct.Struct("=2I8s")
_FIRST_LOG_BYTES = 1 << 20
_MOST_LOG_BYTES = 1 << 26
_LOG_LINES = 25
_RUN_TIME = 0  # BPF_STATS_RUN_TIME


class ProgramType(enum.IntEnum):
    """``enum bpf_prog_type``, those that carry packets."""

    SOCKET_FILTER = 1
    SCHED_CLS = 3
    XDP = 6
    SK_REUSEPORT = 21
    SK_LOOKUP = 30


class AttachType(enum.IntEnum):
    """``enum bpf_attach_type``, those that carry packets."""

    NONE = 0
    XDP_DEVMAP = 33
    SK_LOOKUP = 36
    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class ProgramRefused(BpfError):
    """The verifier refused a program. ``log`` is all that it said."""

    def __init__(self, number: int, what: str, log: str) -> None:
        """Name the errno, the program and what the verifier said."""
        super().__init__(Command.PROG_LOAD, number, what)
        self.log = log

    def __str__(self) -> str:
        lines = self.log.strip().splitlines()
        omitted = [f"({len(lines) - _LOG_LINES} lines omitted)"] if len(lines) > _LOG_LINES else []
        head = f"{self.what}: the verifier refused it: {self.errno_name}, {self.strerror}"
        return "\n".join([head, *omitted, *lines[-_LOG_LINES:]])


@attrs.frozen(kw_only=True)
class ProgramInfo:
    """A program as the kernel describes it."""

    name: str
    id: int
    type: int
    tag: str
    """Hash of the instructions, in hexadecimal."""
    run_time_ns: int
    """Time spent in it while :func:`count_run_time` was on."""
    run_count: int
    """Runs while :func:`count_run_time` was on."""
    verified_instructions: int
    """How many the verifier walked through (since 5.16; else 0)."""


@final
class Program(Descriptor):
    """A loaded program. Closing it leaves attached and pinned programs alive."""

    @classmethod
    def load(
        cls,
        instructions: bytes,
        kind: ProgramType,
        *,
        maps: Sequence[Map] = (),
        name: str,
        expected_attach_type: AttachType = AttachType.NONE,
        flags: int = 0,
        license: str = "GPL",
    ) -> Program:
        """Load a program.

        Args:
            instructions: As :func:`compiler.compile_program` returns them.
            kind: What it is for.
            maps: Those that it refers to, by number; the program keeps them alive.
            name: For people: letters, digits, ``_`` and ``.``; cut to 15 characters.
            expected_attach_type: Where it will be attached; some kinds need it.
            flags: ``XDP_HAS_FRAGS`` or none.
            license: What the program declares itself to be; some helpers are for GPL programs only.

        Raises:
            ProgramRefused: The verifier did not like it.
            BpfError: EPERM without the rights; E2BIG, EINVAL.
            InstructionError: It refers to a map that is not there.
        """
        code = relocate(instructions, [each.fd for each in maps], f"program {name}")
        request = _LoadRequest(
            code=code,
            kind=kind,
            name=name,
            attach_type=expected_attach_type,
            flags=flags,
            license=license,
        )
        fd, refused, _ = request.load(0)
        log_bytes = _FIRST_LOG_BYTES
        while refused is not None:
            # Loaded again for its log: collecting it takes far longer than loading.
            fd, error, log = request.load(log_bytes)
            if error is None:
                break
            # ENOSPC: the log is longer; kernels before 6.4 keep its beginning, and the reason comes last.
            if error.errno == errno.ENOSPC and log_bytes < _MOST_LOG_BYTES:
                log_bytes *= 4
                continue
            raise ProgramRefused(refused.errno or 0, refused.what, log) if log else refused
        return cls(fd)

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Program:
        """Open a program that is pinned.

        Raises:
            BpfError: ENOENT when nothing is there.
        """
        return cls(open_pinned(path))

    @classmethod
    def open_id(cls, number: int) -> Program:
        """Open the program with this id, as links and netlink name it.

        Raises:
            BpfError: ENOENT when it is gone.
        """
        return cls(open_by_id(Command.PROG_GET_FD_BY_ID, number, "program"))

    def info(self) -> ProgramInfo:
        """Return what the kernel says of it."""
        raw = read_info(self.fd, _INFO_BYTES, "program")
        kind, number, tag = _INFO.unpack_from(raw)
        # Offsets of struct bpf_prog_info: name 64, run_time_ns 192, verified_insns 216.
        run_time_ns, run_count = struct.unpack_from("=2Q", raw, 192)
        (verified,) = struct.unpack_from("=I", raw, 216)
        return ProgramInfo(
            name=raw[64:80].partition(b"\0")[0].decode(errors="replace"),
            id=number,
            type=ProgramType(kind) if kind in ProgramType._value2member_map_ else kind,
            tag=tag.hex(),
            run_time_ns=run_time_ns,
            run_count=run_count,
            verified_instructions=verified,
        )


@attrs.frozen(kw_only=True)
class _LoadRequest:
    code: bytes
    kind: ProgramType
    name: str
    attach_type: AttachType
    flags: int
    license: str

    def load(self, log_bytes: int) -> tuple[int, BpfError | None, str]:
        """Try once, with that much memory for the log; return the descriptor, or why there is none, and the log."""
        code, license = buffer(self.code), buffer(self.license.encode() + b"\0")
        log = buffer(log_bytes) if log_bytes else None
        attributes = _LOAD.pack(
            self.kind,
            len(self.code) // SIZE_BYTES,
            address(code),
            address(license),
            1 if log_bytes else 0,
            log_bytes,
            address(log),
            0,
            self.flags,
            self.name.encode()[:_NAME_BYTES],
            0,
            self.attach_type,
        )
        try:
            return bpf(Command.PROG_LOAD, attributes, f"program {self.name}")[0], None, ""
        except BpfError as error:
            return -1, error, log.value.decode(errors="replace") if log is not None else ""


def count_run_time() -> Descriptor:
    """Have the kernel count runs and time of all programs (some 20 ns a run), until the result is closed.

    Raises:
        BpfError: EPERM.
    """
    return Descriptor(bpf(Command.ENABLE_STATS, struct.pack("=I", _RUN_TIME), "statistics of programs")[0])
