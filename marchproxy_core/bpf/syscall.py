"""The bpf(2) system call: command numbers and errors.

The only file that knows the numbers of the commands. The callers pack the attributes, since only they know
which part of ``union bpf_attr`` (include/uapi/linux/bpf.h) a command reads. Every call may block.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import resource

from marchproxy_core.errors import MarchProxyError

Buffer = ctypes.Array[ctypes.c_char]
"""Memory at an address that the kernel can be told; as long as its length."""

ENOTSUPP = 524
"""The kernel's own errno, unknown to the C library: this kind of object cannot do that (include/linux/errno.h)."""

_NUMBERS = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "s390x": 351,
    "ppc64le": 361,
    "armv7l": 386,
}
_MOST_ATTEMPTS = 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long]
_libc.syscall.restype = ctypes.c_long


class Command(enum.IntEnum):
    """Commands of bpf(2), ``enum bpf_cmd``."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    MAP_LOOKUP_AND_DELETE_BATCH = 25
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    ENABLE_STATS = 32
    LINK_DETACH = 34


_CHARGED = (Command.MAP_CREATE, Command.PROG_LOAD)


class BpfError(MarchProxyError, OSError):
    """The kernel refused a bpf(2) command. ``errno`` says how, ``command`` what was asked."""

    def __init__(self, command: Command, number: int, what: str) -> None:
        """Name the command, the errno and what the command was for, as ``map flows``."""
        super().__init__(number, os.strerror(number))
        self.command = command
        self.what = what

    @property
    def errno_name(self) -> str:
        """The errno as ``EPERM``."""
        if self.errno == ENOTSUPP:
            return "ENOTSUPP"
        return errno.errorcode.get(self.errno or 0, str(self.errno))

    def __str__(self) -> str:
        strerror = "not supported for this kind of object" if self.errno == ENOTSUPP else self.strerror
        hint = ""
        if self.errno == errno.EPERM and os.geteuid() != 0:
            hint = " - need CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: run as root"
        return f"{self.what}: BPF_{self.command.name} failed: {self.errno_name}, {strerror}{hint}"


def buffer(content: bytes | bytearray | int) -> Buffer:
    """Return memory with that content, or of that many zero bytes."""
    if isinstance(content, int):
        return ctypes.create_string_buffer(content)
    return (ctypes.c_char * len(content)).from_buffer_copy(content)


def address(memory: Buffer | None) -> int:
    """Return where the memory is, 0 for none. It must be kept alive while the kernel uses it."""
    return ctypes.addressof(memory) if memory is not None else 0


def bpf(command: Command, attributes: bytes, what: str) -> tuple[int, Buffer]:
    """Make the system call.

    Args:
        command: What to do.
        attributes: The beginning of ``union bpf_attr``; the kernel takes the rest for zeros.
        what: The object in question, for the error, as ``map flows``.

    Returns:
        The result, for most commands a new descriptor (close-on-exec, the caller's to close) or 0; and the
        attributes as the kernel left them.

    Raises:
        BpfError: The kernel refused.
    """
    memory = buffer(attributes)
    return call(command, memory, what), memory


def call(command: Command, attributes: Buffer, what: str) -> int:
    """Make the system call on attributes that the kernel changes in place, also where it refuses.

    Raises:
        BpfError: The kernel refused.
    """
    for _ in range(_MOST_ATTEMPTS):
        result = _libc.syscall(_number(), int(command), attributes, len(attributes))
        if result >= 0:
            return int(result)
        number = ctypes.get_errno()
        if number == errno.EPERM and command in _CHARGED and _lift_memory_limit():
            continue
        # The verifier gives up with EAGAIN when a signal is pending (kernel/bpf/verifier.c, since 5.0); its handler
        # has run once we are here again, so that another attempt is worth it.
        if command != Command.PROG_LOAD or number not in (errno.EAGAIN, errno.EINTR):
            break
    raise BpfError(command, number, what)


def _lift_memory_limit() -> bool:
    """Lift this process's limit of locked memory as far as it may, and say whether it went up.

    Kernels before 5.11 charge maps and programs to it, and its 64 KiB hold next to nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limits in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        if soft in (limits[0], resource.RLIM_INFINITY):
            return False
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limits)
        except (OSError, ValueError):
            continue  # without CAP_SYS_RESOURCE no further than to the hard limit
        return True
    return False


def _number() -> int:
    machine = platform.machine()
    try:
        return _NUMBERS[machine]
    except KeyError:
        known = ", ".join(sorted(_NUMBERS))
        raise OSError(
            errno.ENOSYS, f"need the number of bpf(2), have none for {machine}; known: {known}"
        ) from None


def is_available() -> bool | None:
    """Whether the kernel knows bpf(2) at all; None when the number of the call is unknown here. No side effect."""
    if platform.machine() not in _NUMBERS:
        return None
    # A command that no kernel has: EINVAL, or EPERM without rights; ENOSYS from a kernel without the system call.
    _libc.syscall(_number(), 1 << 20, None, 0)
    return ctypes.get_errno() != errno.ENOSYS
