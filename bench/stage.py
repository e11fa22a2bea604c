"""The stage of one turn: a laboratory of its own, with the server, one peer and the place for the generator.

A fresh one each time, so that no TIME_WAIT socket, conntrack entry, cache or leftover process of one turn meets the
next.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from bench import admin, cpu
from bench.configurations import Protocol, Service
from bench.http.shape import Shape
from bench.peers import KERNEL_TIERS
from bench.placing import Cpus
from bench.starting import TurnFailed, excerpt, flat, launch, pinned, start_marchproxy, tail, until_ready
from marchproxy_core.errors import MarchProxyError
from marchproxy_core.testing import Lab, Namespace, open_lab, until

if TYPE_CHECKING:
    from bench.peers import Peer
    from bench.readings import CpuShare

_FIRST_LOOK = 0.15
_LAST_LOOK = 0.9
_PATIENCE_S = 30.0
_BRAKE_PROGRAM = Path(__file__).parent / "programs" / "brake.py"
_CLOSED_PORT = 9
_LISTEN = "0A"  # include/net/tcp_states.h, TCP_LISTEN


@attrs.frozen(kw_only=True, eq=False)
class Stage:
    """One turn's laboratory while it stands; made by :func:`set_up`."""

    lab: Lab
    cpus: Cpus
    generator: Namespace
    """Where the generator runs: the client, or the proxy's own place when there is no proxy."""
    generator_cpus: frozenset[int]
    target: str
    """The address that the generator talks to."""
    port: int
    proxy_pid: int | None
    worker_pid: int | None
    """The process whose threads do the work; None: packets pass in the kernel, whoever sends or receives them."""
    confirm: Callable[[], Awaitable[None]]
    """Raises MarchProxyError when the peer did not carry what was measured, where that can be asked."""
    directory: Path
    """Where the server's files are, and the peer's."""
    access_log: Path | None
    spread_over: int | None
    """How many workers the proxy's threads are divided by, where it moves work from one to another."""

    async def load(self, argv: Sequence[str], *, seconds: float) -> tuple[str, CpuShare]:
        """Run a generator to its end, with the brake on if there is one, and look at the CPUs in between.

        Args:
            argv: Its command line; it must take about ``seconds``.
            seconds: How long it runs; the first and last tenths of it do not count for the CPUs.

        Returns:
            Its standard output, and who used the CPUs.

        Raises:
            TurnFailed: It failed, or took half a minute longer than it should.
        """
        if self.cpus.brake and self.worker_pid is not None:
            await _slow_down(self.lab.proxy, self.cpus)
        output = ""

        async def generate() -> None:
            nonlocal output
            output = await self.run(argv, deadline_s=seconds + _PATIENCE_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(generate)
            await trio.sleep(seconds * _FIRST_LOOK)
            first = await trio.to_thread.run_sync(cpu.look, self.worker_pid)
            await trio.sleep(seconds * (_LAST_LOOK - _FIRST_LOOK))
            last = await trio.to_thread.run_sync(cpu.look, self.worker_pid)
        return output, self.share(first, last)

    async def keep_awake(self) -> None:
        """Let no CPU halt until the end of the turn: waking one up may take longer than what a latency is to show."""
        for each in sorted(self.cpus.proxy | self.cpus.generators):
            argv = ["chrt", "--idle", "0", sys.executable, "-c", "while True: pass"]
            await self.lab.proxy.start(pinned(argv, frozenset({each})))

    async def run(self, argv: Sequence[str], *, deadline_s: float) -> str:
        """Run a program in the generator's place to its end and return its standard output.

        Raises:
            TurnFailed: It failed or did not end in time.
        """
        with trio.move_on_after(deadline_s):
            done = await self.generator.run(pinned(argv, self.generator_cpus), check=False)
            if done.returncode != 0:
                raise TurnFailed(
                    f"{argv[0]} ended with {done.returncode}: {excerpt(done.stderr or done.stdout)}"
                )
            return done.stdout.decode(errors="replace")
        raise TurnFailed(f"{argv[0]} did not end within {deadline_s:g} s")

    def share(self, first: cpu.Moment, last: cpu.Moment) -> CpuShare:
        """Return who used the CPUs between two looks."""
        share = cpu.between(first, last, proxy_cpus=self.cpus.proxy, generator_cpus=self.generator_cpus)
        return share if self.spread_over is None else share.spread_over(self.spread_over)


@asynccontextmanager
async def set_up(
    peer: Peer,
    *,
    protocol: Protocol,
    port: int,
    server: Callable[[Path], list[str]],
    http: Shape | None = None,
    cpus: Cpus,
) -> AsyncIterator[Stage]:
    """Make a laboratory with a server and a peer that forwards one service to it; all of it is gone on return.

    Args:
        peer: What stands between client and server.
        protocol: tcp or udp.
        port: The service's port, at the proxy and at the server.
        server: Writes what the server needs into a directory of its own, and returns its command line.
        http: What an HTTP service is asked for; None: it is none.
        cpus: Which CPUs are whose.

    Raises:
        TurnFailed: The server or the peer did not start to listen.
    """
    # What is in the kernel runs in the context of whoever sends, so generators may have the CPU that no worker needs.
    generator_cpus = cpus.generators | cpus.proxy if peer.is_in_kernel else cpus.generators
    with tempfile.TemporaryDirectory(prefix="marchproxy-bench-") as name:
        log = Path(name) / "peer.log"
        log.touch()
        try:
            async with open_lab(forwarding=peer.kind == "rules") as lab:
                # The backend answers without TLS; one that is asked directly has the proxy's part to do, and its CPU.
                does_handshakes = peer.kind == "nothing" and http is not None and http.handshakes
                server_cpus = cpus.proxy if does_handshakes else generator_cpus
                server_argv = pinned(server(Path(name)), server_cpus)
                await _start(lab.server, server_argv, Path(name) / "server.log", protocol, port)
                front, backend = str(lab.front_ip.ip4), str(lab.server_ip.ip4)
                service = Service(protocol=protocol, front=front, backend=backend, port=port, http=http)
                if peer.tier == "xdp":
                    await _suit_xdp(lab)
                argv = peer.write(Path(name), service)
                pid = await _put_up(peer, argv, lab.proxy, cpus, service, log)
                confirm = partial(_confirm, peer, Path(name))
                yield Stage(
                    lab=lab,
                    cpus=cpus,
                    generator=lab.proxy if peer.kind == "nothing" else lab.client,
                    generator_cpus=generator_cpus,
                    target=backend if peer.kind == "nothing" else front,
                    port=port,
                    proxy_pid=pid,
                    worker_pid=None if peer.is_in_kernel else pid,
                    confirm=confirm,
                    directory=Path(name),
                    access_log=Path(name) / peer.access_log if peer.access_log else None,
                    spread_over=(http or Shape()).workers if peer.moves_work else None,
                )
        except* MarchProxyError as failed:
            said = tail(log)
            raise TurnFailed(
                "; ".join(flat(failed)) + (f"; the peer said: {said}" if said else "")
            ) from failed


async def _put_up(
    peer: Peer, argv: list[str], namespace: Namespace, cpus: Cpus, service: Service, log: Path
) -> int | None:
    """Start a peer's process, or load its rules; returns the process's pid."""
    if peer.kind == "nothing":
        return None
    if peer.kind == "rules":
        done = await namespace.run(argv, check=False)
        if done.returncode != 0:
            raise TurnFailed(f"{argv[0]} ended with {done.returncode}: {excerpt(done.stderr)}")
        return None
    if peer.tier in KERNEL_TIERS:  # nobody listens at the service's address
        return (await start_marchproxy(namespace, pinned(argv, cpus.proxy), log, peer.tier)).pid
    process = await _start(namespace, pinned(argv, cpus.proxy), log, service.protocol, service.port)
    return process.pid


async def _suit_xdp(lab: Lab) -> None:
    """Have client and server take frames that XDP redirects to them, and the proxy know the client's address.

    A veth drops such frames without a word if it has no NAPI. XDP leaves the first packet of a client that is not among
    the neighbours to the stack, where nobody serves one whose service is pinned to this tier.
    """
    for namespace in (lab.client, lab.server):
        await namespace.run(["ethtool", "-K", "to_proxy", "gro", "on"])
    with contextlib.suppress(ConnectionRefusedError):
        await (await lab.client.connect_tcp(lab.front_ip.ip4, _CLOSED_PORT)).aclose()


async def _slow_down(namespace: Namespace, cpus: Cpus) -> None:
    """Start the brake; the laboratory ends it."""
    process = await namespace.start(
        pinned([sys.executable, str(_BRAKE_PROGRAM), str(cpus.brake)], cpus.proxy)
    )

    async def runs() -> bool:
        if process.poll() is not None:
            raise TurnFailed(
                "the brake needs the right to use SCHED_FIFO (CAP_SYS_NICE), or three CPUs without it"
            )
        return os.sched_getscheduler(process.pid) == os.SCHED_FIFO

    await until(runs, what="the brake")


async def _start(
    namespace: Namespace, argv: Sequence[str], log: Path, protocol: str, port: int
) -> trio.Process:
    process = await launch(namespace, argv, log)
    await until_ready(
        process, argv[3], partial(namespace.call, _is_bound, protocol, port), f"port {port} of {argv[3]}"
    )
    return process


async def _confirm(peer: Peer, directory: Path) -> None:
    if peer.tier in KERNEL_TIERS:
        await trio.to_thread.run_sync(admin.confirm_carried, directory, peer.tier)


def _is_bound(protocol: str, port: int) -> bool:
    """Whether a socket in the calling thread's namespace listens; iperf3 would take a connection for a test."""
    for line in Path(f"/proc/thread-self/net/{protocol}").read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and (protocol == "udp" or state == _LISTEN):
            return True
    return False
