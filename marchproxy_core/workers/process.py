"""One worker process from the control process's side: start it, feed it the work, hear it, end it."""

from __future__ import annotations

import array
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import attrs
import structlog
import trio

from marchproxy_core.door import Rule
from marchproxy_core.model import ServiceTable
from marchproxy_core.workers.cells import ServiceCells
from marchproxy_core.workers.channel import MOST_REPORT_BYTES, Frames, Report, frame, parse_report
from marchproxy_core.workers.messages import Doors, Flush, Lend, Message, ServiceWork, Work

if TYPE_CHECKING:
    from collections.abc import Iterable

    from marchproxy_core.services import Endpoint

log = structlog.get_logger()

END_DEADLINE_S = 2.0
_CHUNK_BYTES = 1 << 16


@attrs.frozen(kw_only=True, eq=False)
class Order:
    """One version of the work, for all workers of a pool."""

    version: int
    table: ServiceTable
    cells: Mapping[str, ServiceCells]


@final
@attrs.define(eq=False, kw_only=True)
class WorkerProcess:
    """A worker that runs."""

    index: int
    region: int
    process: trio.Process
    channel: trio.socket.SocketType
    applied: int = 0
    """Version of the work that it does."""
    _lent: dict[socket.socket, int] = attrs.field(factory=dict, init=False)
    _numbers: int = attrs.field(default=0, init=False)
    _doors: tuple[Rule, ...] = attrs.field(default=(), init=False)
    _sending: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def kill(self) -> None:
        """End it at once; its connections are lost."""
        self.process.send_signal(signal.SIGKILL)

    async def order(self, order: Order, count: int) -> None:
        """Send one version of the work, with the sockets that it needs and does not have.

        Args:
            order: The work.
            count: Number of workers among which the sockets of a listener are shared out.

        Raises:
            OSError: The worker is dead.
        """
        lent: dict[socket.socket, int] = {}
        services = []
        for name, assignment in order.table.assignments.items():
            numbers = []
            for listener in assignment.listeners:
                for sock in listener.sockets[self.index :: count]:
                    number = (
                        lent.get(sock) or self._lent.get(sock) or await self._lend(listener.endpoint, sock)
                    )
                    if number:
                        lent[sock] = number
                        numbers.append(number)
            services.append(
                ServiceWork(
                    service=assignment.service,
                    role=assignment.role,
                    backends=assignment.backends,
                    listeners=tuple(numbers),
                    cells=order.cells[name],
                )
            )
        self._lent = lent
        # Not a part of the work, which is sent at each change of a backend's health: they may be many.
        if order.table.door is not self._doors:
            self._doors = order.table.door
            await self.send(Doors(rules=self._doors))
        await self.send(Work(version=order.version, settings=order.table.settings, services=tuple(services)))

    async def flush(self, table: ServiceTable) -> None:
        """Tell of the backends that are flushed, and of nothing else.

        Raises:
            OSError: The worker is dead.
        """
        services = {
            name: flushed for name, assignment in table.assignments.items() if (flushed := assignment.flushed)
        }
        if services:
            await self.send(Flush(services=services))

    async def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send one message; of several at once, one after the other.

        Raises:
            OSError: The worker is dead.
        """
        rest = memoryview(frame(pickle.dumps(message)))
        rights = [] if descriptor is None else [array.array("i", [descriptor])]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, right) for right in rights]
        async with self._sending:
            sent = await self.channel.sendmsg([rest], ancillary)
            # Half a message would spoil all that follow.
            with trio.CancelScope(shield=True):
                while sent < len(rest):
                    rest = rest[sent:]
                    sent = await self.channel.send(rest)

    async def listen(self, hear: Callable[[Report], None]) -> None:
        """Call ``hear`` with what the worker says, until it is dead or says something that makes no sense."""
        frames = Frames(MOST_REPORT_BYTES)
        while True:
            try:
                data = await self.channel.recv(_CHUNK_BYTES)
                for body in frames.feed(data):
                    hear(parse_report(body))
            except OSError:
                return
            except ValueError as error:
                log.error("worker.talked_nonsense", worker=self.index, pid=self.pid, error=str(error))  # noqa: TRY400
                self.kill()
                return
            if not data:
                return

    async def _lend(self, endpoint: Endpoint, sock: socket.socket) -> int:
        if sock.fileno() < 0:
            return 0  # closed since: a newer table is on its way
        self._numbers += 1
        await self.send(Lend(number=self._numbers, endpoint=endpoint), sock.fileno())
        return self._numbers


@asynccontextmanager
async def started_process(
    *,
    tier: str,
    entry: str,
    index: int,
    region: int,
    ledger: int,
    cpus: Iterable[int],
    beat: Callable[[], None],
) -> AsyncIterator[WorkerProcess]:
    """Start a worker; at the end of the block it is gone, by itself or killed after two seconds.

    Args:
        tier: The tier's name.
        entry: The worker's main function, ``package.module:function``.
        index: Which of the tier's workers.
        region: Its region of the ledger.
        ledger: Descriptor of the ledger's memory.
        cpus: CPUs that it may run on; all that this process may use when empty.
        beat: Called once, before the process starts: gives it a fresh heartbeat.
    """
    ours, theirs = socket.socketpair()
    beat()
    with trio.socket.from_stdlib_socket(ours) as channel:
        with theirs:
            process = await trio.lowlevel.open_process(
                [
                    *(sys.executable, "-m", "marchproxy_core.workers", entry, "--tier", tier),
                    *("--index", str(index), "--region", str(region)),
                    *("--channel", str(theirs.fileno()), "--ledger", str(ledger)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), ledger),
            )
        try:
            cpus = set(cpus)
            if cpus:
                os.sched_setaffinity(process.pid, cpus)
            yield WorkerProcess(index=index, region=region, process=process, channel=channel)
        finally:
            channel.close()  # the worker sees the end of its channel, and ends
            with trio.CancelScope(shield=True), trio.move_on_after(END_DEADLINE_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
