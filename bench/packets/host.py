"""The laboratory's interfaces, and the kernel's threads that serve one of them. All but one block."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute

from bench.starting import TurnFailed

if TYPE_CHECKING:
    from marchproxy_core.testing import Namespace

FIRST = -20
"""The nice value that goes before all others."""
_THREADED = "/sys/class/net/to_client/threaded"
_POLLER = "napi/to_client-"


async def pin_poller(proxy: Namespace, cpu: int) -> int:
    """Give the interface that packets come in by a thread that polls it, on one CPU; return its pid."""
    before = _pollers()
    # /sys shows the interfaces of the namespace that mounted it.
    script = f"mount -t sysfs sysfs /sys && echo 1 > {_THREADED}"
    done = await proxy.run(["unshare", "--mount", "sh", "-c", script], check=False)
    found = _pollers() - before
    if done.returncode != 0 or len(found) != 1:
        raise TurnFailed(
            f"need a thread that polls an interface ({_THREADED}, Linux 5.12), have {len(found)}: "
            f"{done.stderr.decode(errors='replace').strip()}"
        )
    (pid,) = found
    os.sched_setaffinity(pid, {cpu})
    os.setpriority(os.PRIO_PROCESS, pid, FIRST)
    return pid


def _pollers() -> set[int]:
    return {pid for pid, name in _kernel_threads() if name.startswith(_POLLER)}


def softirq_thread(cpu: int) -> int:
    """Return the pid of a CPU's ksoftirqd."""
    return next(pid for pid, name in _kernel_threads() if name == f"ksoftirqd/{cpu}")


def _kernel_threads() -> list[tuple[int, str]]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                name = Path("/proc", entry, "comm").read_text(encoding="utf-8", errors="replace")
                found.append((int(entry), name.strip()))
    return found


def run_time(pid: int) -> int:
    """Return how long a thread ran, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0])


def index(name: str) -> int:
    """Return the index of an interface of the calling thread's namespace."""
    with IPRoute() as netlink:
        return int(netlink.link_lookup(ifname=name)[0])


def not_sent(name: str) -> int:
    """Return how many frames it could not send since it was made: with a veth, the peer's ring was full."""
    with IPRoute() as netlink:
        (link,) = netlink.get_links(netlink.link_lookup(ifname=name)[0])
        return int(link.get_attr("IFLA_STATS64")["tx_dropped"])


def mac(name: str) -> str:
    """Return its link-layer address."""
    with IPRoute() as netlink:
        (link,) = netlink.get_links(netlink.link_lookup(ifname=name)[0])
        return str(link.get_attr("IFLA_ADDRESS"))


def know(interface: str, ip: str, mac: str) -> None:
    """Enter a neighbour for good."""
    with IPRoute() as netlink:
        netlink.neigh(
            "replace", dst=ip, lladdr=mac, ifindex=netlink.link_lookup(ifname=interface)[0], state="permanent"
        )
