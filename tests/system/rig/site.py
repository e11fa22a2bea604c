"""All that one test has, and the look at what is left of it."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import attrs
import trio
from system_rig import processes
from system_rig.client import LONGEST_S
from system_rig.daemon import Daemon, Ended, run_command
from system_rig.server import DatagramServer, Server
from system_rig.service import Service
from system_rig.web_server import WebServer

from marchproxy_core.config import SETTINGS
from marchproxy_core.testing import until

_PROGRAM = Path(sys.executable).with_name("marchproxy")
# Below the kernel's usual ip_local_port_range, so that no client's own port gets in the way meanwhile.
_PORTS = iter(random.sample(range(12000, 32000), 20000))


def free_port() -> int:
    """Return a port that nobody has, with IPv4 nor with IPv6; never the same one twice."""
    for port in _PORTS:
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                with socket.socket(family) as sock:
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind(("", port))
        except OSError:
            continue
        return port
    raise AssertionError("no free port is left")


@attrs.define(eq=False)
class Site:
    """Daemons, backends and services; :meth:`end` ends them, and fails when a daemon left something behind."""

    directory: Path
    nursery: trio.Nursery
    settings: dict[str, object] = attrs.field(factory=dict)
    """Settings in the file, by their names in small letters."""
    environ: dict[str, str] = attrs.field(factory=dict)
    """Variables of the daemon."""
    options: tuple[str, ...] = ()
    """Of the daemon's command."""
    before: tuple[str, ...] = ()
    """What stands before the daemon's command, as ``nsenter``, which becomes it."""
    _services: list[Service] = attrs.field(factory=list)
    _sockets: list[socket.socket] = attrs.field(factory=list)
    _daemons: list[Daemon] = attrs.field(factory=list)
    _pids: set[int] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.settings |= {"worker_threads": 2, "admin_listen": f"unix:{self.directory / 'admin.sock'}"}
        self.carry_by("application")

    def carry_by(self, tier: str) -> None:
        """Have this one of the two tiers with worker processes alone, so that all workers are its own."""
        for one in ("application", "sockets"):
            self.settings[f"enable_{one}"] = "auto" if one == tier else "false"

    @property
    def config(self) -> Path:
        return self.directory / "marchproxy.yaml"

    async def server(self, name: str = "a", ip: str = "127.0.0.1", **more: int) -> Server:
        """Start a backend."""
        server = Server(name.encode(), ip, free_port(), self.nursery, **more)
        await server.start()
        return server

    async def web_server(self, name: str = "a", ip: str = "127.0.0.1") -> WebServer:
        """Start a backend that speaks HTTP and WebSocket."""
        server = WebServer(name.encode(), ip, free_port(), self.nursery)
        await server.start()
        return server

    async def datagram_server(self, name: str = "a", ip: str = "127.0.0.1") -> DatagramServer:
        """Start a UDP backend."""
        server = DatagramServer(name.encode(), ip, free_port(), self.nursery)
        await server.start()
        return server

    def nobody(self) -> dict[str, object]:
        """Name a backend that refuses."""
        return {"ip": "127.0.0.1", "port": free_port()}

    async def black_hole(self) -> dict[str, object]:
        """Name a backend whose queue is full: the kernel drops every further SYN, so connecting to it never ends."""
        await trio.lowlevel.checkpoint()
        sock = socket.socket()
        self._sockets.append(sock)
        sock.bind(("127.0.0.1", free_port()))
        sock.listen(0)
        for _ in range(2):
            filler = socket.socket()
            self._sockets.append(filler)
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        return {"ip": "127.0.0.1", "port": sock.getsockname()[1]}

    def service(
        self, name: str, *servers: Server | DatagramServer, ip: str = "127.0.0.1", **options: object
    ) -> Service:
        """Describe a service."""
        service = Service(name, free_port(), ip, dict(options))
        if servers:
            service.give(*servers)
        self._services.append(service)
        return service

    def write(self, *services: Service, **settings: object) -> None:
        """Write the file: JSON is YAML."""
        self.settings |= settings
        written = {"settings": self.settings, "services": [service.written for service in services]}
        # In one step: a daemon that is told to reload while the file is being written would read half of it.
        whole = self.directory / "whole.yaml"
        whole.write_text(json.dumps(written, indent=1))
        whole.rename(self.config)

    async def start(self, *services: Service, **settings: object) -> Daemon:
        """Write the file, start a daemon with it, and wait until it is ready."""
        self.write(*services, **settings)
        daemon = await self.launch(*self.options)

        async def is_ready() -> bool:
            assert daemon.process.poll() is None, daemon.log.read_text()
            return await daemon.answers("/readyz")

        await until(is_ready, deadline_s=LONGEST_S, what="the daemon is ready")
        self._pids |= {daemon.pid, *daemon.workers}
        return daemon

    async def launch(self, *options: str) -> Daemon:
        """Start a daemon with the file as it is and these options, and wait for nothing."""
        log = self.directory / f"daemon{len(self._daemons)}.log"
        environ = self._environ()
        with log.open("wb") as written:
            process = await trio.lowlevel.open_process(
                [*self.before, _PROGRAM, "run", "--config", self.config, "--log-format", "json", *options],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )
        daemon = Daemon(process, str(self.settings["admin_listen"]), log, environ, _PROGRAM)
        self._daemons.append(daemon)
        return daemon

    async def run(self, *arguments: str) -> Ended:
        """Run a command that needs no daemon, or is one, to its end."""
        return await run_command(_PROGRAM, *arguments, environ=self._environ())

    async def gone(self, *pids: int) -> None:
        """Wait until these processes have ended."""
        await until(
            lambda: not any(map(processes.is_alive, pids)), deadline_s=LONGEST_S, what=f"{pids} are gone"
        )

    async def end(self) -> None:
        """Close every client, end every daemon at once, and look at what is left."""
        for service in self._services:
            for client in service.clients:
                client.close()
        for sock in self._sockets:
            sock.close()
        for daemon in self._daemons:
            if daemon.process.poll() is None:
                self._pids |= set(daemon.workers)
                await _end(daemon)
        await self.gone(*self._pids)
        assert self._was_killed() or "admin.sock" not in os.listdir(self.directory)
        for daemon in self._daemons:
            assert not daemon.faults()

    def _was_killed(self) -> bool:
        return any(daemon.process.returncode == -signal.SIGKILL for daemon in self._daemons)

    def _environ(self) -> dict[str, str]:
        ours = {name for name in os.environ if name in SETTINGS or name.startswith("ENABLE_")}
        return {name: value for name, value in os.environ.items() if name not in ours} | self.environ


async def _end(daemon: Daemon) -> None:
    """Send two signals, the second one when the first was heard; kill what does not hear."""
    try:
        daemon.signal(signal.SIGTERM)
        await until(lambda: bool(daemon.events("drain.started")) or daemon.process.poll() is not None)
        daemon.signal(signal.SIGTERM)
        await until(lambda: daemon.process.poll() is not None, what="the daemon's end")
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
            await daemon.process.wait()
