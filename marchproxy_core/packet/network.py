"""What the packet engine must know of this host's network: its addresses, and the ways to backends. Blocks.

In the network namespace of the calling thread.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
from pyroute2 import IPRoute, NetlinkError

from marchproxy_core.services import IPAddress

LOOPBACK = 1
"""Index of the loopback interface, in every namespace."""
_RTN_LOCAL = 2
_ARPHRD_ETHER = 1
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_UNPRIVILEGED = 1024


@attrs.frozen(kw_only=True)
class Way:
    """How this host reaches an address."""

    interface: int
    """Index; 0 when there is no way."""
    source: IPAddress | None
    """What its own connections there have as their source."""
    is_local: bool = False
    """Whether the address is this host's own."""
    gateway: IPAddress | None = None
    """The router that packets go to; None: to the address itself."""


@attrs.frozen(kw_only=True)
class NetworkFacts:
    """The network as it was at one moment."""

    addresses: Mapping[IPAddress, int]
    """The host's own ones, without loopback and link-local ones, and the index of the interface of each."""
    ways: Mapping[IPAddress, Way]
    names: Mapping[int, str]
    """Names of the Ethernet interfaces that are up, by index."""
    down: Mapping[int, str] = attrs.field(factory=dict)
    """Names of those that are there and not up."""


def look_at_network(destinations: Iterable[IPAddress]) -> NetworkFacts:
    """Read the addresses, the interfaces, and the way to each destination.

    Raises:
        NetlinkError: The kernel does not answer.
    """
    with IPRoute() as netlink:
        addresses: dict[IPAddress, int] = {}
        for message in netlink.get_addr():
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if text is None:
                continue
            ip = ipaddress.ip_address(text)
            if not (ip.is_loopback or ip.is_link_local):
                addresses[ip] = message["index"]
        names: dict[int, str] = {}
        down: dict[int, str] = {}
        for link in netlink.get_links():
            if link["ifi_type"] == _ARPHRD_ETHER:
                group = names if link.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN") else down
                group[link["index"]] = str(link.get_attr("IFLA_IFNAME"))
        ways = {ip: _way(netlink, ip) for ip in set(destinations)}
    return NetworkFacts(addresses=addresses, ways=ways, names=names, down=down)


def _way(netlink: IPRoute, ip: IPAddress) -> Way:
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        (route,) = netlink.route("get", dst=str(ip), family=family)
    except NetlinkError as error:
        if error.code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
            return Way(interface=0, source=None)  # unreachable, prohibited, or swallowed by a black hole
        raise
    source = route.get_attr("RTA_PREFSRC")
    gateway = route.get_attr("RTA_GATEWAY") or (route.get_attr("RTA_VIA") or {}).get("addr")
    return Way(
        interface=route.get_attr("RTA_OIF") or 0,
        source=ipaddress.ip_address(source) if source else None,
        is_local=route["type"] == _RTN_LOCAL,
        gateway=ipaddress.ip_address(gateway) if gateway else None,
    )


def default_port_range() -> tuple[int, int]:
    """Return the longest range of unprivileged ports that this host's own connections do not use.

    Raises:
        OSError: /proc cannot be read.
    """
    first, last = (int(number) for number in re.findall(r"\d+", _RANGE.read_text(encoding="ascii"))[:2])
    return longest_outside(first, last)


def longest_outside(first: int, last: int) -> tuple[int, int]:
    """Return the longest range from 1024 to 65535 outside of ``first`` to ``last``; all of it when nothing is left."""
    below = (_FIRST_UNPRIVILEGED, first - 1)
    above = (max(last + 1, _FIRST_UNPRIVILEGED), 65535)
    best = max(below, above, key=lambda ends: ends[1] - ends[0])
    return best if best[1] >= best[0] else (_FIRST_UNPRIVILEGED, 65535)
