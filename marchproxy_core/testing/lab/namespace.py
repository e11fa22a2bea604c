"""One network namespace of a laboratory, and what a test does in it."""

from __future__ import annotations

import errno
import functools
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar, TypeVarTuple, final

import attrs
import trio
from pyroute2 import IPRoute

from marchproxy_core.testing.lab import naming
from marchproxy_core.testing.waiting import until

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Output = int | IO[bytes] | None

_PATIENCE_S = 3.0
_IFA_F_NODAD = 0x02
_IFA_F_TENTATIVE = 0x40


@final
@attrs.define(eq=False)
class Namespace:
    """A network namespace; its laboratory makes and removes it."""

    name: str
    _processes: list[trio.Process] = attrs.field(factory=list, init=False)

    @property
    def path(self) -> Path:
        """Where it is mounted, for ``nsenter --net=``."""
        return naming.path_of(self.name)

    async def call(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a blocking callable in a thread inside the namespace; sockets that it opens stay in there."""
        return await trio.to_thread.run_sync(naming.within, self.path, functools.partial(work, *args))

    async def socket(
        self, family: socket.AddressFamily = socket.AF_INET, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> socket.socket:
        """Open a non-blocking socket inside the namespace; the caller closes it."""

        def make() -> socket.socket:
            sock = socket.socket(family, kind)
            sock.setblocking(False)
            return sock

        return await self.call(make)

    async def listen_tcp(self, ip: object, port: int = 0) -> trio.SocketListener:
        """Listen inside the namespace; port 0 lets the kernel choose. The caller closes the listener."""
        sock = trio.socket.from_stdlib_socket(await self.socket(_family(ip)))
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await sock.bind((str(ip), port))
            sock.listen(1024)
        except OSError:
            sock.close()
            raise
        return trio.SocketListener(sock)

    async def connect_tcp(self, ip: object, port: int) -> trio.SocketStream:
        """Connect from inside the namespace; the caller closes the stream."""
        sock = trio.socket.from_stdlib_socket(await self.socket(_family(ip)))
        try:
            await sock.connect((str(ip), port))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)

    async def until_listening(self, ip: object, port: int, *, deadline_s: float = 10.0) -> None:
        """Wait until a TCP connection from inside the namespace succeeds; it is closed at once."""

        async def answers() -> bool:
            try:
                stream = await self.connect_tcp(ip, port)
            except OSError:
                return False
            await stream.aclose()
            return True

        await until(answers, deadline_s=deadline_s, what=f"a listener at {ip} port {port}")

    async def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Output = subprocess.DEVNULL,
        stdout: Output = None,
        stderr: Output = None,
        env: dict[str, str] | None = None,
    ) -> trio.Process:
        """Start a program inside the namespace; the laboratory ends it, with all its descendants in there.

        The process's pid is the program's own: ``nsenter`` replaces itself by it.
        """
        process = await trio.lowlevel.open_process(
            self._entered(argv), stdin=stdin, stdout=stdout, stderr=stderr, env=env
        )
        self._processes.append(process)
        return process

    async def run(
        self, argv: Sequence[str], *, check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program inside the namespace to its end, and return its status and output.

        Raises:
            subprocess.CalledProcessError: Its status is not 0 and ``check`` is set.
        """
        return await trio.run_process(
            self._entered(argv), capture_stdout=True, capture_stderr=True, check=check, env=env
        )

    async def set_sysctl(self, name: str, value: str | int) -> None:
        """Write a per-namespace setting, named as ``net.ipv4.tcp_tw_reuse``."""
        # /proc/sys/net shows the namespace of the thread that opens the file.
        file = Path("/proc/sys", *name.split("."))
        await self.call(lambda: file.write_text(f"{value}\n", encoding="ascii"))

    async def add_address(self, address: str, interface: str) -> None:
        """Give an interface another address, as ``198.18.1.7/24``; usable on return."""
        ip, _, length = address.partition("/")
        await self.call(add_address, ip, int(length), interface)

    async def delete_interface(self, interface: str) -> None:
        """Remove an interface; of a veth pair the other end goes with it."""
        await self.call(_delete_link, interface)

    async def set_up(self, interface: str, up: bool) -> None:
        """Switch an interface on or off."""
        await self.call(_set_link, interface, "state", "up" if up else "down")

    async def set_mtu(self, interface: str, mtu: int) -> None:
        """Set the MTU of an interface, in bytes."""
        await self.call(_set_link, interface, "mtu", mtu)

    async def blackhole(self, prefix: str) -> None:
        """Let everything that this namespace routes to ``prefix`` vanish, until :meth:`clear_blackhole`.

        The kernel tells a *local* sender (connect fails with EINVAL), so to make a peer silent blackhole the
        way back, in the peer's namespace.
        """
        await self.call(_blackhole, "add", prefix)

    async def clear_blackhole(self, prefix: str) -> None:
        """Take a black hole away."""
        await self.call(_blackhole, "del", prefix)

    async def end_processes(self) -> None:
        """End what :meth:`start` started: SIGTERM, three seconds, SIGKILL."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        with trio.move_on_after(_PATIENCE_S):
            for process in self._processes:
                await process.wait()
        for process in self._processes:
            process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()
        self._processes.clear()

    def _entered(self, argv: Sequence[str]) -> list[str]:
        # Not `ip netns exec`: it hides what is mounted below /sys, as bpffs.
        return ["nsenter", f"--net={self.path}", "--", *argv]


def add_address(ip: str, length: int, interface: str) -> None:
    """Add an address without duplicate address detection, and wait until it can be used. Blocks."""
    with IPRoute() as netlink:
        index = _index(netlink, interface)
        flags = {"flags": _IFA_F_NODAD} if ":" in ip else {}
        netlink.addr("add", index=index, address=ip, prefixlen=length, **flags)


def tentative_addresses() -> int:
    """Count the addresses in the calling thread's namespace that cannot be used yet. Blocks."""
    with IPRoute() as netlink:
        return sum(1 for message in netlink.get_addr() if message["flags"] & _IFA_F_TENTATIVE)


def _set_link(interface: str, attribute: str, value: str | int) -> None:
    with IPRoute() as netlink:
        netlink.link("set", index=_index(netlink, interface), **{attribute: value})


def _delete_link(interface: str) -> None:
    with IPRoute() as netlink:
        netlink.link("del", index=_index(netlink, interface))


def _blackhole(command: str, prefix: str) -> None:
    with IPRoute() as netlink:
        netlink.route(command, dst=prefix, type="blackhole")


def _index(netlink: IPRoute, interface: str) -> int:
    found = netlink.link_lookup(ifname=interface)
    if not found:
        raise OSError(errno.ENODEV, f"no interface {interface!r} in this namespace")
    return int(found[0])


def _family(ip: object) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in str(ip) else socket.AF_INET
