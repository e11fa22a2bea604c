"""What packet tiers need of the host before BPF does anything for them. Looks, and changes nothing.

Takes some milliseconds, needs no rights, imports nothing of bcc.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from marchproxy_core.bpf import syscall
from marchproxy_core.bpf.bpffs import BPFFS, can_mount, find_bpffs
from marchproxy_core.bpf.toolchain import Toolchain, find_toolchain
from marchproxy_core.model import Requirement

if TYPE_CHECKING:
    from marchproxy_core.host import HostFacts

_KERNEL = (5, 12, 0)
"""XDP links are of 5.9, inner arrays of differing size of 5.10, a route's MTU from bpf_fib_lookup() of 5.12."""


def requirements(
    host: HostFacts, *, toolchain: Toolchain | None = None, bpffs: Path = BPFFS
) -> tuple[Requirement, ...]:
    """Say what the tiers that use BPF need, and what is there.

    Lockdown is not among it: what it takes away (``bpf_probe_read_kernel``, since 5.4) no program that carries
    packets uses. Nor is ``kernel.unprivileged_bpf_disabled``, since the capabilities are needed anyway.

    Args:
        host: Facts of this host.
        toolchain: What compiles; looked for by default.
        bpffs: Where the bpffs is, or is to be.
    """
    found = find_toolchain() if toolchain is None else toolchain
    return (
        _kernel(host),
        _system_call(),
        _rights(host),
        _pinning(host, bpffs),
        _bcc(found),
        _library(found),
        _headers(found),
    )


def _kernel(host: HostFacts) -> Requirement:
    met = host.kernel >= _KERNEL
    return Requirement(
        need=f"Linux {_KERNEL[0]}.{_KERNEL[1]} or later",
        have=f"Linux {host.kernel_release}",
        fix="" if met else "boot a newer kernel",
        met=met,
        source="bpf_check_mtu(), include/uapi/linux/bpf.h",
    )


def _system_call() -> Requirement:
    there = syscall.is_available()
    have = {True: "it", False: "a kernel without it", None: "no knowledge of its number on this machine"}
    return Requirement(
        need="the system call bpf(2)",
        have=have[there],
        fix="" if there else "boot a kernel with CONFIG_BPF_SYSCALL",
        met=there,
        source="bpf(2)",
    )


def _rights(host: HostFacts) -> Requirement:
    # Before 5.8, and for a process with it still, CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON: capabilities(7).
    wanted = {"CAP_NET_ADMIN"}
    if "CAP_SYS_ADMIN" not in host.capabilities:
        wanted |= {"CAP_BPF", "CAP_PERFMON"}
    missing = sorted(wanted - host.capabilities)
    return Requirement(
        need="the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        have="them" if not missing else f"no {', no '.join(missing)}",
        fix="" if not missing else "run as root, or give the service these capabilities",
        met=not missing,
        source="capabilities(7)",
    )


def _pinning(host: HostFacts, path: Path) -> Requirement:
    need = f"a bpffs at {path} to write to"
    mount = find_bpffs(path)
    if mount is not None and not mount.read_only and os.access(path, os.W_OK):
        return Requirement(need=need, have="it", met=True)
    if mount is not None:
        how = "a read-only one" if mount.read_only else "no right to write there"
        return Requirement(need=need, have=how, fix=f"mount -o remount,rw {path}, and run as root", met=False)
    if can_mount(path) and "CAP_SYS_ADMIN" in host.capabilities:
        return Requirement(need=need, have="none, and the right to mount it", met=True)
    return Requirement(need=need, have="none", fix=f"mount -t bpf bpf {path}", met=False)


def _bcc(found: Toolchain) -> Requirement:
    # A compiled program in the cache is no substitute: the next change of the settings may need another one.
    return Requirement(
        need="bcc's Python package",
        have=f"bcc {found.bcc_version} in {found.bcc}" if found.bcc else "none",
        fix="" if found.bcc else "apt install python3-bpfcc",
        met=found.bcc is not None,
    )


def _library(found: Toolchain) -> Requirement:
    return Requirement(
        need="bcc's library libbcc.so.0",
        have=str(found.library) if found.library else "none",
        fix="" if found.library else "apt install libbpfcc",
        met=found.library is not None,
    )


def _headers(found: Toolchain) -> Requirement:
    met = found.headers is not None and found.machine_headers is not None
    return Requirement(
        need="the headers of the kernel's user-space API",
        have=f"those in {found.headers}" if met else "none",
        fix="" if met else "apt install linux-libc-dev",
        met=met,
    )
