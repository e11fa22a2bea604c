"""The network that the kernel builds ask for routes: a namespace with the ways of places.py. Blocks; needs root."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from pyroute2 import IPRoute

from marchproxy_core.packet.reasons import Reason
from marchproxy_core.testing.lab import naming
from marchproxy_core.testing.lab.namespace import add_address
from marchproxy_core.testing.packets.places import (
    FRONT,
    GATEWAY,
    INTERFACES,
    OWN,
    VERSIONS,
    WAYS,
    Interface,
)

if TYPE_CHECKING:
    from marchproxy_core.services import IPAddress

_SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.lo.disable_ipv6": "0",
    # The engine asks for routes as from the loopback interface (packet/c/routes.h).
    "net.ipv4.conf.lo.forwarding": "1",
    "net.ipv6.conf.lo.forwarding": "1",
}


@attrs.frozen(kw_only=True)
class Ground:
    """The namespace; programs must be run in it."""

    path: Path
    indexes: Mapping[str, int]
    """Of the interfaces, by name."""

    def index(self, interface: Interface) -> int:
        """Return the index of an interface."""
        return self.indexes[interface.name]


@contextlib.contextmanager
def open_ground() -> Iterator[Ground]:
    """Make the namespace; it is gone on return.

    Raises:
        LabUnavailable: No right to make one.
    """
    name = naming.create(naming.new_serial(), "ground")
    try:
        path = naming.path_of(name)
        yield Ground(path=path, indexes=naming.within(path, _build))
    finally:
        naming.remove(name)


def _build() -> Mapping[str, int]:
    for name, value in _SYSCTLS.items():
        Path("/proc/sys", *name.split(".")).write_text(value, encoding="ascii")
    with IPRoute() as netlink:
        netlink.link("set", index=1, state="up")
        indexes = {interface.name: _add(netlink, interface) for interface in INTERFACES}
        for own in OWN:
            for version in VERSIONS:
                add_address(str(own.of(version)), _host_bits(version), FRONT.name)
        for way in WAYS:
            for version in VERSIONS:
                _lead(netlink, way.destination.of(version), way.interface, way.reason, indexes)
        for version in VERSIONS:
            gateway = GATEWAY.of(version)
            _lead(netlink, gateway, FRONT, Reason.FORWARDED, indexes)
            netlink.route("add", dst="default", family=_FAMILY[version], gateway=str(gateway))
    return indexes


def _add(netlink: IPRoute, interface: Interface) -> int:
    """Make an interface, as a pair whose other end has no part in anything."""
    other = f"{interface.name}-end"
    netlink.link(
        "add", ifname=interface.name, kind="veth", address=interface.mac.hex(":"), peer={"ifname": other}
    )
    for name in (interface.name, other):
        netlink.link("set", index=netlink.link_lookup(ifname=name)[0], mtu=interface.mtu, state="up")
    return int(netlink.link_lookup(ifname=interface.name)[0])


def _lead(
    netlink: IPRoute,
    address: IPAddress,
    interface: Interface,
    reason: Reason,
    indexes: Mapping[str, int],
) -> None:
    """Add the route to one address, and its neighbour if it is known."""
    destination = f"{address}/{_host_bits(address.version)}"
    if reason is Reason.NO_ROUTE:
        netlink.route("add", dst=destination, type="unreachable")
        return
    if reason is Reason.LOCAL_DESTINATION:
        return
    index = indexes[interface.name]
    netlink.route("add", dst=destination, oif=index, scope="link")
    if reason is Reason.FORWARDED:
        netlink.neigh(
            "add", dst=str(address), lladdr=interface.neighbour_mac.hex(":"), ifindex=index, state="permanent"
        )


def _host_bits(version: int) -> int:
    return 32 if version == 4 else 128


_FAMILY = {4: 2, 6: 10}  # AF_INET, AF_INET6
