"""Keeps the link-layer addresses known that packets to backends go to, for programs that run before the host's stack.

Such a program can look a neighbour up, and neither find one nor keep one: the kernel forgets those that nobody in its
stack uses. So they are asked for from here, about once a second. Blocks; call it in the namespace it is about.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, final

from pyroute2 import IPRoute, NetlinkError

from marchproxy_core.services import IPAddress

if TYPE_CHECKING:
    from marchproxy_core.packet.network import NetworkFacts

Hop = tuple[int, IPAddress]
"""An interface's index, and who is asked for there."""

# include/uapi/linux/neighbour.h
_NTF_USE = 0x01
_REACHABLE, _STALE, _DELAY, _PROBE, _NOARP, _PERMANENT = 0x02, 0x04, 0x08, 0x10, 0x40, 0x80
_KNOWN = _REACHABLE | _STALE | _DELAY | _PROBE | _NOARP | _PERMANENT
_LEFT_ALONE = _KNOWN & ~_STALE
_LOOK_S = 0.005


def hops(network: NetworkFacts) -> frozenset[Hop]:
    """Return whom packets to the backends are handed to, on Ethernet."""
    return frozenset(
        (way.interface, way.gateway or ip)
        for ip, way in network.ways.items()
        if way.interface in network.names and not way.is_local
    )


def keep_known(network: NetworkFacts) -> frozenset[Hop]:
    """Have the kernel find those neighbours that it does not know, and make sure of those it has not heard of lately.

    Returns:
        Those that are not known at the moment.
    """
    unknown = set()
    with IPRoute() as netlink:
        for hop in hops(network):
            state = _state(netlink, hop)
            if not state & _KNOWN:
                unknown.add(hop)
            # NTF_USE would end the permanence of a permanent one (neigh_update(), since Linux 5.16).
            if not state & _LEFT_ALONE:
                _ask_for(netlink, hop)
    return frozenset(unknown)


@final
class Acquaintances:
    """Whom a program's packets were handed to at the last look."""

    def __init__(self, patience_s: float) -> None:
        """Know nobody yet; wait so long at most for those who are new and do not answer."""
        self._patience_s = patience_s
        self._met: frozenset[Hop] = frozenset()

    def meet(self, network: NetworkFacts) -> frozenset[Hop]:
        """Have the kernel find those that it does not know, and wait for those of them who are new here.

        Args:
            network: Facts that have the ways to the backends.

        Returns:
            Those who are new, and did not answer.
        """
        there = hops(network)
        new, self._met = there - self._met, there
        deadline = time.monotonic() + self._patience_s
        while (unknown := keep_known(network) & new) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)  # noqa: TID251 - in a thread
        return unknown


def _state(netlink: IPRoute, hop: Hop) -> int:
    """Return a neighbour's state; 0 when the kernel has none there."""
    interface, ip = hop
    try:
        (answer,) = netlink.neigh("get", dst=str(ip), ifindex=interface)
    except NetlinkError:  # there is none, or no such interface any more
        return 0
    return int(answer["state"])


def _ask_for(netlink: IPRoute, hop: Hop) -> None:
    interface, ip = hop
    # What cannot be asked for (the interface is gone, the table full) stays unknown: its packets are a lower tier's.
    with contextlib.suppress(NetlinkError):
        netlink.neigh("replace", dst=str(ip), ifindex=interface, flags=_NTF_USE, state="none")
