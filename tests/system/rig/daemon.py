"""One daemon: its processes, its log, its admin API, and the commands that ask it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import attrs
import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families
from system_rig import processes
from system_rig.client import LONGEST_S

from marchproxy_core.testing import until

OURS = frozenset(
    {
        "worker.handler_failed",
        "worker.talked_nonsense",
        "worker.hung",
        "admin.request_failed",
        "admin.server_failed",
    }
)
"""Events that tell of a fault of ours, unless a test provokes it."""


@attrs.frozen
class Ended:
    """A command that ran to its end."""

    status: int
    output: str
    errors: str


@attrs.define(eq=False)
class Daemon:
    """A ``marchproxy run``; made by :meth:`Site.start`."""

    process: trio.Process
    admin: str
    """As ``--admin`` takes it."""
    log: Path
    environ: dict[str, str]
    program: Path
    forgives: set[str] = attrs.field(factory=set)
    """Events of :data:`OURS` that the test provokes."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that run."""
        return [pid for pid in processes.children(self.pid) if processes.is_alive(pid)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the control process."""
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        """Wait for its end."""
        with trio.fail_after(LONGEST_S):
            return await self.process.wait()

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the events of a name that were logged so far."""
        return [json.loads(line) for line in self._lines() if f'"event": "{name}"' in line]

    def faults(self) -> list[str]:
        """Return what the log tells of faults of ours: such events, and lines that are none, as of a traceback."""
        told = [str(event) for name in OURS - self.forgives for event in self.events(name)]
        return told + [line for line in self._lines() if not line.startswith("{")]

    def _lines(self) -> list[str]:
        lines = self.log.read_text().splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    async def told(self, name: str, count: int = 1, *, deadline_s: float = LONGEST_S, **keys: object) -> None:
        """Wait until so many events with these keys were logged."""

        def found() -> bool:
            matching = [event for event in self.events(name) if keys.items() <= event.items()]
            return len(matching) >= count

        await until(found, deadline_s=deadline_s, what=f"{name} with {keys}")

    async def ask(self, path: str, method: str = "GET") -> httpx.Response:
        """Ask the admin API."""
        is_unix = self.admin.startswith("unix:")
        path_of_socket = self.admin.removeprefix("unix:") if is_unix else None
        # Without verify=False each one reads all certificates of the host.
        transport = httpx.AsyncHTTPTransport(uds=path_of_socket, verify=False)
        host = "localhost" if is_unix else self.admin
        async with httpx.AsyncClient(transport=transport, timeout=LONGEST_S) as client:
            return await client.request(method, f"http://{host}{path}")

    async def answers(self, path: str, status: int = 200) -> bool:
        """Whether the admin API answers so."""
        try:
            return (await self.ask(path)).status_code == status
        except httpx.TransportError:
            return False

    async def metric(self, name: str, **labels: str) -> float:
        """Sum a metric's samples that have these labels."""
        page = (await self.ask("/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def counts(self, name: str, value: float, **labels: str) -> None:
        """Wait until a metric has this value.

        Tiers' counters are read once a second: wait for a counter's new value before for a gauge's old one.
        """
        seen = [-1.0]

        async def reached() -> bool:
            seen[0] = await self.metric(name, **labels)
            return seen[0] == value

        try:
            await until(reached, deadline_s=LONGEST_S)
        except TimeoutError:
            raise AssertionError(f"{name} {labels} is {seen[0]}, want {value}") from None

    async def counts_some(self, name: str, **labels: str) -> float:
        """Wait until a metric is above 0; return it."""
        seen = [0.0]

        async def reached() -> bool:
            seen[0] = await self.metric(name, **labels)
            return seen[0] > 0

        await until(reached, deadline_s=LONGEST_S, what=f"some {name} {labels}")
        return seen[0]

    async def backends(self) -> dict[int, dict[str, object]]:
        """Return what ``/admin/backends/health`` says, by port."""
        rows = (await self.ask("/admin/backends/health")).json()["backends"]
        return {int(row["backend"].rpartition(":")[2]): row for row in rows}

    async def has_backend(self, port: int, state: str) -> None:
        """Wait until a backend is in this state."""

        async def reached() -> bool:
            return (await self.backends())[port]["state"] == state

        await until(reached, deadline_s=LONGEST_S, what=f"backend {port} is {state}")

    async def run(self, *arguments: str) -> Ended:
        """Run another command for this daemon, to its end."""
        return await run_command(self.program, *arguments, "--admin", self.admin, environ=self.environ)


async def run_command(program: Path, *arguments: str, environ: dict[str, str]) -> Ended:
    """Run a command to its end."""
    with trio.fail_after(LONGEST_S):
        done = await trio.run_process(
            [program, *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
