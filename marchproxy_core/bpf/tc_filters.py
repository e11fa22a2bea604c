"""Programs on interfaces as filters of the clsact qdisc: what kernels before 6.6 have instead of TCX links.

A filter belongs to nobody: it outlives the process that made it, and anybody may remove it. So ours has a name,
a priority and a handle of its own, is found again by them after a crash, and nothing else is ever touched.
Blocks; works in the network namespace of the calling thread.
"""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.bpf.netlink import open_netlink
from marchproxy_core.errors import MarchProxyError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

    from marchproxy_core.bpf.programs import Program

PRIORITY = 0x4D50
"""Behind what others put first on purpose, and before 0xC000, from where the kernel numbers those without one."""
HANDLE = 0x4D50
NAME = "marchproxy"

_CLSACT = 0xFFFF0000
_ETH_P_ALL = 0x0003


class Direction(enum.IntEnum):
    """Which of clsact's two lists, as the parent of a filter."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


class FilterTaken(MarchProxyError):
    """Somebody else's filter has our place."""


@attrs.frozen(kw_only=True)
class TcFilter:
    """A filter on an interface."""

    interface: int
    """Index."""
    direction: Direction
    priority: int
    handle: int
    kind: str = "bpf"
    name: str = NAME
    made_qdisc: bool = attrs.field(default=False, eq=False)
    """Whether the interface had no clsact qdisc before it."""


def attach_filter(
    program: Program,
    interface: int,
    direction: Direction = Direction.INGRESS,
    *,
    name: str = NAME,
    priority: int = PRIORITY,
) -> TcFilter:
    """Put a SCHED_CLS program on an interface, in direct-action mode; replaces one of ours without a gap.

    Args:
        program: Loaded; may be closed afterwards.
        interface: Its index.
        direction: On the way in or out.
        name: By which it is known for ours.
        priority: 1 to 65535; lower ones run first, and the first that does not return TC_ACT_UNSPEC (-1) decides.

    Raises:
        FilterTaken: A filter that is not ours has this priority and handle.
        OSError: ENODEV; EPERM.
    """
    wanted = TcFilter(interface=interface, direction=direction, priority=priority, handle=HANDLE, name=name)
    made_qdisc = _ensure_qdisc(interface)
    with open_netlink(f"TC filter on interface {interface}") as netlink:
        _refuse_a_stranger(netlink, wanted)
        netlink.tc(
            "replace-filter",
            "bpf",
            interface,
            HANDLE,
            parent=direction,
            prio=priority,
            protocol=_ETH_P_ALL,
            fd=program.fd,
            name=name,
            direct_action=True,
        )
    return attrs.evolve(wanted, made_qdisc=made_qdisc)


def detach_filter(held: TcFilter) -> bool:
    """Take a filter of ours away, and the qdisc if it was made for it and is empty.

    Returns:
        Whether it was there. One that meanwhile belongs to somebody else stays.

    Raises:
        OSError: EPERM; ENOENT or ENODEV: somebody else removed it, or the interface, at this very moment.
    """
    with open_netlink(f"TC filter on interface {held.interface}") as netlink:
        if held not in _filters(netlink, held.interface, held.direction):
            return False
        netlink.tc(
            "del-filter",
            "bpf",
            held.interface,
            held.handle,
            parent=held.direction,
            prio=held.priority,
            protocol=_ETH_P_ALL,
        )
        if held.made_qdisc and not any(_filters(netlink, held.interface, each) for each in Direction):
            netlink.tc("del", "clsact", held.interface)
    return True


def filters_on(interface: int, direction: Direction) -> tuple[TcFilter, ...]:
    """List all filters there, of everybody, in the order in which they run; those that are not BPF have no name.

    None for an interface that is not there: the kernel says no more.
    """
    with open_netlink(f"TC filters on interface {interface}") as netlink:
        return _filters(netlink, interface, direction)


def _ensure_qdisc(interface: int) -> bool:
    try:
        with open_netlink(f"clsact on interface {interface}") as netlink:
            netlink.tc("add", "clsact", interface)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        return False
    return True


def _refuse_a_stranger(netlink: IPRoute, wanted: TcFilter) -> None:
    for found in _filters(netlink, wanted.interface, wanted.direction):
        if (found.priority, found.handle) == (wanted.priority, wanted.handle) and found != wanted:
            raise FilterTaken(
                f"interface {wanted.interface}: need TC priority {wanted.priority} with handle {wanted.handle:#x}, "
                f"have a filter {found.kind} {found.name!r} there - fix: move it, or choose another priority"
            )


def _filters(netlink: IPRoute, interface: int, direction: Direction) -> tuple[TcFilter, ...]:
    found = []
    for message in netlink.get_filters(index=interface, parent=direction):
        options = message.get_attr("TCA_OPTIONS")
        if not message["handle"] or options is None:
            continue  # the head of a priority's list
        kind = message.get_attr("TCA_KIND")
        found.append(
            TcFilter(
                interface=interface,
                direction=direction,
                priority=message["info"] >> 16,
                handle=message["handle"],
                kind=kind,
                name=(options.get_attr("TCA_BPF_NAME") or "") if kind == "bpf" else "",
            )
        )
    return tuple(found)
