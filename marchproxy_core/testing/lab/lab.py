"""Client, proxy and server: three namespaces in a row, with IPv4 and IPv6.

client  to_proxy ── to_client  proxy  to_server ── to_proxy  server
198.18.0.2         198.18.0.1         198.18.1.1            198.18.1.2
2001:db8:c::2      2001:db8:c::1      2001:db8:5::1         2001:db8:5::2
"""

from __future__ import annotations

import functools
import ipaddress
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import trio
from pyroute2 import IPRoute

from marchproxy_core.testing.lab import naming
from marchproxy_core.testing.lab.namespace import Namespace, add_address, tentative_addresses
from marchproxy_core.testing.waiting import until

if TYPE_CHECKING:
    from marchproxy_core.services import IPAddress

_CLEAN_UP_S = 20.0

_SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    # Else a proxy runs out of ports to one backend after some 28,000 connections.
    "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.ip_local_port_range": "15000 65535",
}


@attrs.frozen
class Dual:
    """One host's address in both families."""

    ip4: ipaddress.IPv4Address = attrs.field(converter=ipaddress.IPv4Address)
    ip6: ipaddress.IPv6Address = attrs.field(converter=ipaddress.IPv6Address)

    def of(self, version: int) -> IPAddress:
        """Return the address of IP version 4 or 6."""
        return self.ip4 if version == 4 else self.ip6


@final
@attrs.frozen(eq=False, kw_only=True)
class Lab:
    """The three namespaces and their addresses; made by :func:`open_lab`."""

    client: Namespace
    proxy: Namespace
    server: Namespace
    client_ip: Dual = Dual("198.18.0.2", "2001:db8:c::2")
    front_ip: Dual = Dual("198.18.0.1", "2001:db8:c::1")
    """The proxy, as clients reach it; interface ``to_client``."""
    back_ip: Dual = Dual("198.18.1.1", "2001:db8:5::1")
    """The proxy, as servers see it; interface ``to_server``."""
    server_ip: Dual = Dual("198.18.1.2", "2001:db8:5::2")
    silent_ip: Dual = Dual("198.18.1.66", "2001:db8:5::66")
    """A backend that never answers: packets to it reach the server, which drops them without a word."""

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """Client, proxy, server."""
        return (self.client, self.proxy, self.server)


@asynccontextmanager
async def open_lab(*, forwarding: bool = False) -> AsyncIterator[Lab]:
    """Make a laboratory; everything in it is gone on return, processes too.

    Leftovers of dead owners are swept first, so that even a killed run leaves nothing behind for long.

    Args:
        forwarding: Whether the proxy's kernel forwards packets; off, so that what reaches the server came
            through the proxy under test.

    Raises:
        LabUnavailable: No root, no nsenter, or a kernel without namespaces or IPv6.
    """
    _refuse_what_is_missing()
    await trio.to_thread.run_sync(naming.sweep)
    serial = naming.new_serial()
    made: list[Namespace] = []
    try:
        for label in ("client", "proxy", "server"):
            made.append(Namespace(await trio.to_thread.run_sync(naming.create, serial, label)))  # noqa: PERF401 - kept when the next one fails
        lab = Lab(client=made[0], proxy=made[1], server=made[2])
        await _build(lab, forwarding=forwarding)
        yield lab
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLEAN_UP_S):
            try:
                for namespace in made:
                    await namespace.end_processes()
            finally:
                for namespace in made:
                    await trio.to_thread.run_sync(naming.remove, namespace.name)


def _refuse_what_is_missing() -> None:
    if os.geteuid() != 0:
        raise naming.LabUnavailable("root", f"user id {os.geteuid()}", "run as root")
    if shutil.which("nsenter") is None:
        raise naming.LabUnavailable("the program nsenter", "none in PATH", "apt install util-linux")
    if not Path("/proc/sys/net/ipv6").is_dir():
        raise naming.LabUnavailable("IPv6", "a kernel without it", "boot without ipv6.disable=1")


async def _build(lab: Lab, *, forwarding: bool) -> None:
    for namespace in lab.namespaces:
        await namespace.call(_prepare)
    await lab.client.call(_join, "to_proxy", lab.proxy.path, "to_client")
    await lab.server.call(_join, "to_proxy", lab.proxy.path, "to_server")
    await lab.client.call(_settle, {"to_proxy": lab.client_ip}, lab.front_ip)
    await lab.server.call(_settle, {"to_proxy": lab.server_ip}, lab.back_ip)
    await lab.proxy.call(_settle, {"to_client": lab.front_ip, "to_server": lab.back_ip}, None)
    server_mac = await lab.server.call(_mac, "to_proxy")
    await lab.proxy.call(_pin_neighbour, "to_server", lab.silent_ip, server_mac)
    if forwarding:
        await lab.proxy.set_sysctl("net.ipv4.ip_forward", 1)
        await lab.proxy.set_sysctl("net.ipv6.conf.all.forwarding", 1)
    for namespace in lab.namespaces:
        await until(functools.partial(_is_settled, namespace), what=f"the links of {namespace.name}")


def _prepare() -> None:
    for name, value in _SYSCTLS.items():
        Path("/proc/sys", *name.split(".")).write_text(value, encoding="ascii")
    with IPRoute() as netlink:
        netlink.link("set", index=1, state="up")  # the loopback interface is always number 1


def _join(interface: str, peer_namespace: Path, peer: str) -> None:
    """Make a veth pair with one end here and one there; neither is ever seen in the host's namespace."""
    fd = os.open(peer_namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with IPRoute() as netlink:
            netlink.link("add", ifname=interface, kind="veth", peer={"ifname": peer, "net_ns_fd": fd})
    finally:
        os.close(fd)


def _settle(links: dict[str, Dual], gateway: Dual | None) -> None:
    for interface, dual in links.items():
        with IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname=interface)[0], state="up")
        add_address(str(dual.ip4), 24, interface)
        add_address(str(dual.ip6), 64, interface)
    if gateway is not None:
        with IPRoute() as netlink:
            netlink.route("add", dst="0.0.0.0/0", gateway=str(gateway.ip4))
            netlink.route("add", dst="::/0", gateway=str(gateway.ip6))


def _mac(interface: str) -> str:
    with IPRoute() as netlink:
        (link,) = netlink.get_links(netlink.link_lookup(ifname=interface)[0])
        return str(link.get_attr("IFLA_ADDRESS"))


def _pin_neighbour(interface: str, dual: Dual, mac: str) -> None:
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname=interface)[0]
        for ip in (dual.ip4, dual.ip6):
            netlink.neigh("add", dst=str(ip), lladdr=mac, ifindex=index, state="permanent")


async def _is_settled(namespace: Namespace) -> bool:
    return await namespace.call(_links_are_up) and await namespace.call(tentative_addresses) == 0


def _links_are_up() -> bool:
    with IPRoute() as netlink:
        return all(link.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN") for link in netlink.get_links())
