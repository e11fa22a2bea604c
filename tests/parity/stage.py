"""Where a script runs: its service in front, its backends behind, and sockets at either end."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from marchproxy_core.testing import until
from tests.parity import rig  # noqa: F401 - makes system_rig known
from tests.parity.ends import PATIENCE_S, RESET, SILENCE_S
from tests.parity.scenario import Scenario
from tests.parity.tier_site import TierSite

from system_rig.service import Service  # isort: skip
from system_rig.site import free_port  # isort: skip
from system_rig.sockets import opener_in  # isort: skip

TCP_SAVE_SYN = 27  # include/uapi/linux/tcp.h
Prepare = Callable[[trio.socket.SocketType], None]


@attrs.define(eq=False)
class Stage:
    """One scenario in one IP version against one tier."""

    site: TierSite
    scenario: Scenario
    version: int
    service: Service
    backends: list[trio.socket.SocketType]
    """Sockets of those that are open, in the order of the scenario: listening, or for datagrams."""
    _opened: AsyncExitStack = attrs.field(factory=AsyncExitStack)

    @property
    def front(self) -> str:
        """The address that clients know."""
        return str(self.site.lab.front_ip.of(self.version))

    @property
    def backend(self) -> trio.socket.SocketType:
        """The first backend."""
        return self.backends[0]

    async def client(self, *, prepare: Prepare | None = None, source: str = "", port: int = 0):
        """Open a client's socket; the stage closes it."""
        kind = socket.SOCK_STREAM if self.scenario.protocol == "tcp" else socket.SOCK_DGRAM
        sock = opener_in(self.site.lab.client)(self.front, kind)
        self._opened.callback(sock.close)
        if prepare:
            prepare(sock)
        # Of several IPv6 addresses the kernel would take the one that another script added last.
        await sock.bind((source or str(self.site.lab.client_ip.of(self.version)), port))
        if kind == socket.SOCK_DGRAM:
            await sock.connect((self.front, self.service.port))
        return sock

    async def connect(self, **how: object) -> trio.SocketStream:
        """Connect to the service; the stage closes it.

        Raises:
            OSError: Refused, unreachable, reset.
            TooSlowError: Nothing was heard.
        """
        sock = await self.client(**how)
        with trio.fail_after(SILENCE_S):
            await sock.connect((self.front, self.service.port))
        return trio.SocketStream(sock)

    async def accept(self, at: int = 0) -> trio.SocketStream:
        """Take the next connection of a backend; the stage closes it."""
        with trio.fail_after(PATIENCE_S):
            sock, _ = await self.backends[at].accept()
        self._opened.callback(sock.close)
        return trio.SocketStream(sock)

    async def pair(self, **how: object) -> tuple[trio.SocketStream, trio.SocketStream]:
        """Return both ends of a connection through the proxy."""
        return await self.connect(**how), await self.accept()

    async def comes(self, **how: object) -> str:
        """See what a new client meets: ``is served``, or what happens instead. Needs :meth:`greeting`."""
        try:
            stream = await self.connect(**how)
        except ConnectionRefusedError:
            return "is refused"
        except ConnectionResetError:
            # Of a SYN that is not answered the kernel says "refused": it was, and the reset came soon after.
            return "connects, and is reset"
        except trio.TooSlowError:
            return "hears nothing"
        try:
            # CONNECT_TIMEOUT may be part of it.
            with trio.move_on_after(3 * SILENCE_S):
                return "is served" if await stream.receive_some(1) else "connects, and is closed"
        except RESET:
            return "connects, and is reset"
        return "connects, and hears nothing"

    @asynccontextmanager
    async def greeting(self) -> AsyncIterator[None]:
        """Have every open backend say a byte to each client, and close."""

        async def greet(listener: trio.socket.SocketType) -> None:
            while True:
                sock, _ = await listener.accept()
                with sock:
                    await sock.send(b"a")

        async with trio.open_nursery() as nursery:
            for listener in self.backends:
                nursery.start_soon(greet, listener)
            yield
            nursery.cancel_scope.cancel()

    async def carriers(self) -> set[str]:
        """Wait until a connection or flow of this service was counted; return the tiers that had some."""
        found: set[str] = set()

        async def counted() -> bool:
            found.update((await self.site.opened()).get(self.service.name, ()))
            return bool(found)

        await until(counted, deadline_s=PATIENCE_S, what=f"a connection of {self.service.name} is counted")
        return found

    async def by_whom(self) -> str:
        """Say who carried it, where that was not the tier itself; else nothing."""
        others = await self.carriers() - {self.site.tier}
        return f"; the {' and the '.join(sorted(others))} tier carries it" if others else ""

    async def introduce(self, source: str) -> None:
        """Give the client another address, and have the proxy know whose it is, as after earlier traffic."""
        length = 24 if self.version == 4 else 64
        await self.site.lab.client.add_address(f"{source}/{length}", "to_proxy")
        await self.site.introduce(self.site.lab.client, source, self.front)

    def whose(self, ip: str) -> str:
        """Name an address by its owner."""
        lab = self.site.lab
        owners = {
            "the client's own": lab.client_ip,
            "the listen address": lab.front_ip,
            "one of the proxy's own": lab.back_ip,
            "the backend's": lab.server_ip,
        }
        return next((who for who, dual in owners.items() if str(dual.of(self.version)) == ip), ip)

    async def close(self) -> None:
        """Close what the script opened; the backends stay."""
        await self._opened.aclose()


async def set_up(site: TierSite, scenario: Scenario, version: int, name: str) -> Stage:
    """Open a scenario's backends, and describe its service."""
    server_ip, silent_ip = str(site.lab.server_ip.of(version)), str(site.lab.silent_ip.of(version))
    kind = socket.SOCK_STREAM if scenario.protocol == "tcp" else socket.SOCK_DGRAM
    opened, written = [], []
    for what in scenario.backends:
        entry = {"ip": silent_ip if what == "silent" else server_ip, "port": free_port(), "weight": 1}
        if what in ("open", "drained"):
            sock = opener_in(site.lab.server)(server_ip, kind)
            site.keep(sock)
            await sock.bind((server_ip, entry["port"]))
            if scenario.protocol == "tcp":
                sock.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
                sock.listen(128)
            opened.append(sock)
        if what == "drained":
            entry["weight"] = 0
        written.append(entry)
    front = str(site.lab.front_ip.of(version))
    options = {"protocol": scenario.protocol, "backends": written, **scenario.options}
    service = Service(name, free_port(), front, options)
    if scenario.on_every_address:
        options["listen"] = f"{'[::]' if version == 6 else '0.0.0.0'}:{service.port}"
    site.services.append(service)
    if not scenario.carried_below:
        site.own.append(service)
    return Stage(site, scenario, version, service, opened)
