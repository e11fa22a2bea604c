"""Where everything is in the packet table: addresses, interfaces, next hops. Values only.

The plain build gets the ways as its routes, the kernel builds get a network namespace that has them (ground.py).

clients ── gateway ── front  proxy  back ── backends
                                    narrow ── a backend behind a smaller MTU
                                    wide   ── one behind a larger MTU
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import attrs

from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.lab import Dual

if TYPE_CHECKING:
    from marchproxy_core.services import IPAddress

VERSIONS = (4, 6)


@attrs.frozen(kw_only=True)
class Interface:
    """One of the proxy's interfaces, and who is at the other end."""

    name: str
    number: int
    """Its index in the plain build; the kernel gives its own."""
    mac: bytes
    neighbour_mac: bytes
    mtu: int = 1500


def _mac(network: int, host: int) -> bytes:
    return bytes((2, 0, 0, 0, network, host))


FRONT = Interface(name="front", number=2, mac=_mac(1, 1), neighbour_mac=_mac(1, 2))
BACK = Interface(name="back", number=3, mac=_mac(2, 1), neighbour_mac=_mac(2, 2))
NARROW = Interface(name="narrow", number=4, mac=_mac(3, 1), neighbour_mac=_mac(3, 2), mtu=1280)
WIDE = Interface(name="wide", number=5, mac=_mac(4, 1), neighbour_mac=_mac(4, 2), mtu=9000)
INTERFACES = (FRONT, BACK, NARROW, WIDE)

LISTEN = Dual("198.18.0.1", "2001:db8:c::1")
"""Where services live; on the front interface."""
SOURCE = Dual("198.18.1.1", "2001:db8:5::1")
"""The proxy's own address towards backends."""
OTHER_SOURCE = Dual("198.18.1.3", "2001:db8:5::3")
GATEWAY = Dual("198.18.0.254", "2001:db8:c::fe")
"""Behind it are all who have no way of their own: the clients."""

CLIENT = Dual("192.0.2.7", "2001:db8:1::7")
OTHER_CLIENT = Dual("192.0.2.8", "2001:db8:1::8")
ROUTER = Dual("192.0.2.254", "2001:db8:1::fe")
"""Somewhere on the way, a sender of ICMP errors."""

BACKEND = Dual("198.18.1.2", "2001:db8:5::2")
NARROW_BACKEND = Dual("198.18.2.2", "2001:db8:6::2")
WIDE_BACKEND = Dual("198.18.4.2", "2001:db8:8::2")
FRONT_BACKEND = Dual("203.0.113.9", "2001:db8:f::9")
"""A backend on the clients' side, behind the gateway."""
SILENT = Dual("198.18.1.99", "2001:db8:5::99")
"""On the backends' link, but its link-layer address is not known."""
NOWHERE = Dual("198.18.3.9", "2001:db8:7::9")
"""There is no way to it."""

OWN = (LISTEN, SOURCE, OTHER_SOURCE)
"""The proxy's own addresses; there is no way to any of them, since they are here."""


@attrs.frozen(kw_only=True)
class Way:
    """How a packet to one address leaves."""

    destination: Dual
    interface: Interface = BACK
    reason: Reason = Reason.FORWARDED


WAYS = (
    Way(destination=BACKEND),
    Way(destination=NARROW_BACKEND, interface=NARROW),
    Way(destination=WIDE_BACKEND, interface=WIDE),
    Way(destination=SILENT, reason=Reason.NO_NEIGHBOUR),
    Way(destination=NOWHERE, reason=Reason.NO_ROUTE),
    *(Way(destination=own, reason=Reason.LOCAL_DESTINATION) for own in OWN),
)
"""All others are behind the gateway, on the front interface."""

SPECIAL = (
    *map(ipaddress.ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")),
    *map(ipaddress.ip_network, ("::/8", "fe80::/10", "ff00::/8")),
)


def is_routed(address: IPAddress) -> bool:
    """Whether packets to an address leave by the gateway: kernel and plain build agree about it without being told."""
    told = any(address == way.destination.of(address.version) for way in WAYS)
    return not told and not any(address in network for network in SPECIAL)
