"""Facts of this host, gathered at the start and before each later probe. Reads only; needs no rights.

Gathering does blocking I/O (netlink, /proc): call it in a thread.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import attrs

# Names by bit number, from include/uapi/linux/capability.h; those that a tier may ask for.
_CAPABILITIES = {
    10: "CAP_NET_BIND_SERVICE",
    12: "CAP_NET_ADMIN",
    13: "CAP_NET_RAW",
    14: "CAP_IPC_LOCK",
    17: "CAP_SYS_RAWIO",
    21: "CAP_SYS_ADMIN",
    23: "CAP_SYS_NICE",
    24: "CAP_SYS_RESOURCE",
    38: "CAP_PERFMON",
    39: "CAP_BPF",
}


@attrs.frozen(kw_only=True)
class Interface:
    """One network interface."""

    name: str
    index: int
    kind: str
    """Netlink's link kind, as ``veth``; empty for a physical device."""
    mtu: int
    """In bytes."""
    up: bool
    addresses: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class HostFacts:
    """What probes need to know of the host."""

    kernel: tuple[int, int, int]
    kernel_release: str
    machine: str
    cpus: tuple[int, ...]
    """CPUs that the daemon could run on when it started, before ``ADMIN_CPU_AFFINITY``; the workers'."""
    interfaces: tuple[Interface, ...]
    capabilities: frozenset[str]
    """Effective capabilities of this process, as ``CAP_NET_ADMIN``."""
    is_root: bool

    def interface(self, name: str) -> Interface | None:
        """Return the interface of that name, None when there is none."""
        return next((i for i in self.interfaces if i.name == name), None)


def gather_host_facts() -> HostFacts:
    """Look at the host. Blocks for some milliseconds; call it in a thread."""
    release = platform.release()
    numbers = [int(n) for n in re.findall(r"\d+", release)[:3]]
    major, minor, patch = ([*numbers, 0, 0, 0])[:3]
    return HostFacts(
        kernel=(major, minor, patch),
        kernel_release=release,
        machine=platform.machine(),
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        interfaces=_interfaces(),
        capabilities=_effective_capabilities(
            Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        ),
        is_root=os.geteuid() == 0,
    )


def gather_again(before: HostFacts) -> HostFacts:
    """Look at the host anew. The CPUs stay those of the first look: by now this process may be kept on a few."""
    return attrs.evolve(gather_host_facts(), cpus=before.cpus)


def _interfaces() -> tuple[Interface, ...]:
    # Imported here: every worker process imports this module, and needs 10 MiB less without netlink.
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        addresses: dict[int, list[str]] = {}
        for message in netlink.get_addr():
            address = message.get_attr("IFA_ADDRESS")
            if address is not None:
                addresses.setdefault(message["index"], []).append(f"{address}/{message['prefixlen']}")
        return tuple(
            Interface(
                name=link.get_attr("IFLA_IFNAME"),
                index=link["index"],
                kind=(info.get_attr("IFLA_INFO_KIND") or "")
                if (info := link.get_attr("IFLA_LINKINFO"))
                else "",
                mtu=link.get_attr("IFLA_MTU"),
                up=link.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN"),
                addresses=tuple(addresses.get(link["index"], ())),
            )
            for link in netlink.get_links()
        )


def _effective_capabilities(status: str) -> frozenset[str]:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    bits = int(match[1], 16) if match else 0
    return frozenset(name for bit, name in _CAPABILITIES.items() if bits >> bit & 1)
