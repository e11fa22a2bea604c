"""A site between network namespaces: clients in one, the daemon in the next, backends in the third."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from system_rig.client import LONGEST_S
from system_rig.server import DatagramServer, Server
from system_rig.site import Site, free_port
from system_rig.sockets import opener_in
from system_rig.web_server import WebServer

from marchproxy_core.bpf import Link, Map, items
from marchproxy_core.packet import layout
from marchproxy_core.packet.entries import service_key
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.packet.shared import schema_directory
from marchproxy_core.services import Protocol
from marchproxy_core.testing import until
from marchproxy_core.testing.lab import Lab
from marchproxy_core.testing.lab.naming import within

if TYPE_CHECKING:
    from system_rig.daemon import Daemon
    from system_rig.service import Service

PINS = Path("/sys/fs/bpf/marchproxy")
HOOKS = {"xdp": Hook.XDP, "ebpf": Hook.TC}


@attrs.define(eq=False)
class PacketSite(Site):
    """As :class:`Site`; at its end nothing may be pinned any more."""

    lab: Lab = attrs.field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        Site.__attrs_post_init__(self)
        # UDP flows are open until they are idle.
        self.settings["drain_timeout"] = 1
        self.carry_by("sockets")
        self.before = ("nsenter", f"--net={self.lab.proxy.path}", "--")

    @property
    def pins(self) -> Path:
        """Where the daemons of this lab pin what they have in the kernel."""
        return PINS / within(self.lab.proxy.path, schema_directory)

    def pinned(self) -> list[str]:
        """Names of all that is pinned for this lab, whatever its schema."""
        return [pin.name for directory in self._directories() for pin in directory.iterdir()]

    async def server(self, name: str = "a", ip: str = "", **more: int) -> Server:
        """Start a backend in the server's namespace."""
        where = opener_in(self.lab.server)
        address = ip or str(self.lab.server_ip.ip4)
        server = Server(name.encode(), address, free_port(), self.nursery, open_socket=where, **more)
        await server.start()
        return server

    async def web_server(self, name: str = "a", ip: str = "") -> WebServer:
        """Start a backend in the server's namespace that speaks HTTP and WebSocket."""
        where = opener_in(self.lab.server)
        address = ip or str(self.lab.server_ip.ip4)
        server = WebServer(name.encode(), address, free_port(), self.nursery, open_socket=where)
        await server.start()
        return server

    async def datagram_server(self, name: str = "a", ip: str = "") -> DatagramServer:
        """Start a UDP backend in the server's namespace."""
        where = opener_in(self.lab.server)
        address = ip or str(self.lab.server_ip.ip4)
        server = DatagramServer(name.encode(), address, free_port(), self.nursery, open_socket=where)
        await server.start()
        return server

    def service(
        self, name: str, *servers: Server | DatagramServer, ip: str = "", **options: object
    ) -> Service:
        """Describe a service at the proxy's front, whose clients are in the client's namespace."""
        service = Site.service(self, name, *servers, ip=ip or str(self.lab.front_ip.ip4), **options)
        service.open_socket = opener_in(self.lab.client)
        return service

    async def start_on(self, tier: str, *services: Service, **settings: object) -> Daemon:
        """Start a daemon, and wait until this tier carries all services."""
        daemon = await self.start(*services, **settings)
        await self.carried_by(daemon, tier, *services)
        return daemon

    async def carried_by(self, daemon: Daemon, tier: str, *services: Service) -> None:
        """Wait until a tier carries these services, in the kernel's tables too."""
        for service in services:

            async def is_carried(service: Service = service) -> bool:
                rows = (await daemon.ask("/admin/rules/classification")).json()["services"]
                chosen = any(row["name"] == service.name and row["chosen"] == tier for row in rows)
                return chosen and (tier not in HOOKS or self.is_in_kernel(service, HOOKS[tier]))

            await until(is_carried, deadline_s=LONGEST_S, what=f"{tier} carries {service.name}")

    def is_in_kernel(self, service: Service, hook: Hook) -> bool:
        """Whether the kernel's table has the service, and the program is on both interfaces."""
        links = sum(name.startswith(f"{hook.name.lower()}-") for name in self.pinned())
        return links == 2 and bool(self.hooks_of(service) & hook.bit)

    def hooks_of(self, service: Service, ip: str = "") -> int:
        """Return the bits of the hooks that open flows for a service, as the kernel's table has them now."""
        protocol = Protocol(str(service.options.get("protocol", "tcp")))
        with self.table("services") as table:
            found = table.lookup(service_key(ip_address(ip or service.ip), service.port, protocol))
        return int(layout.SERVICE.unpack(found)["hooks"]) if found else 0

    def flows(self) -> int:
        """Count the flows in the kernel, ended ones too whose keys are not gone yet."""
        with self.table("keys") as table:
            return sum(1 for _ in items(table)) // 2

    def table(self, name: str) -> Map:
        """Open one of the engine's tables; the caller closes it."""
        return Map.open_pinned(self.pins / name)

    def detach(self, interface: str) -> None:
        """Take the TC program off an interface of the proxy, as an operator's mistake would."""
        index = within(self.lab.proxy.path, lambda: socket.if_nametoindex(interface))
        with Link.open_pinned(self.pins / f"tc-{index}") as link:
            link.detach()

    def kill(self, daemon: Daemon) -> None:
        """End a daemon as the kernel does when memory is out; its workers end by themselves."""
        self._pids |= set(daemon.workers)
        daemon.process.kill()

    async def stop(self, daemon: Daemon) -> None:
        """End a daemon in order."""
        self._pids |= set(daemon.workers)
        daemon.process.terminate()
        assert await daemon.exit_status() == 0, daemon.log.read_text()

    async def end(self) -> None:
        """As that of any site; and nothing is pinned, however the daemons ended."""
        try:
            await Site.end(self)
            assert self.pinned() == []
        finally:
            for directory in self._directories():
                for pin in directory.iterdir():
                    pin.unlink()
                directory.rmdir()

    def _directories(self) -> list[Path]:
        namespace = self.pins.name.partition("-")[2]
        return list(PINS.glob(f"*-{namespace}"))
