"""What `make run` starts: the example, its demo backends and the daemon, as a stranger sees them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from system_rig import processes
from system_rig.site import free_port

from marchproxy_core.config import SETTINGS
from marchproxy_core.packet.shared import schema_directory
from marchproxy_core.testing import until
from marchproxy_core.testing.servers import receive_exactly

TREE = Path(__file__).parents[2]
LONGEST_S = 30.0


@attrs.define(eq=False)
class FirstRun:
    """One running `scripts/run`, on ports of its own."""

    process: trio.Process
    told: Path
    """What it and the daemon write to the terminal."""
    ports: dict[int, int]
    """Ports in use, by those in examples/first.yaml; 8080 is the admin API's."""

    async def is_up(self) -> None:
        """Wait for its last line."""

        def said() -> bool:
            assert self.process.poll() is None, self.told.read_text()
            return "Ctrl-C ends" in self.told.read_text()

        await until(said, deadline_s=LONGEST_S, what="everything is up")

    def everybody(self) -> list[int]:
        """Process ids of it and of all below it."""
        found = [self.process.pid]
        for pid in found:
            found += processes.children(pid)
        return found

    async def ended(self) -> int:
        """Wait for its end; return its exit status."""
        with trio.fail_after(LONGEST_S):
            return await self.process.wait()


@pytest.fixture
async def start(tmp_path):
    """Start `scripts/run` with a copy of the example; whatever is left at the test's end is killed."""
    runs: list[FirstRun] = []

    async def start(ports: dict[int, int] | None = None, drain_timeout: str = "2s") -> FirstRun:
        example = (TREE / "examples/first.yaml").read_text()
        assert "drain_timeout: 2s" in example
        example = example.replace("drain_timeout: 2s", f"drain_timeout: {drain_timeout}")
        named = sorted({int(port) for port in re.findall(r"\b1[89]\d{3}\b", example)})
        ports = ports or {port: free_port() for port in (*named, 8080)}
        file = tmp_path / f"first {len(runs)}.yaml"  # a path with a space in it
        file.write_text(re.sub(r"\b1[89]\d{3}\b", lambda found: str(ports[int(found[0])]), example))
        told = file.with_suffix(".told")
        environ = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        with told.open("wb") as written:
            process = await trio.lowlevel.open_process(
                [TREE / "scripts/run", file],
                env=environ | {"ADMIN_LISTEN": f"127.0.0.1:{ports[8080]}"},
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )
        runs.append(FirstRun(process, told, ports))
        return runs[-1]

    try:
        yield start
    finally:
        with trio.CancelScope(shield=True):
            for run in runs:
                for pid in run.everybody() if run.process.poll() is None else ():
                    os.kill(pid, signal.SIGKILL)
                await run.ended()


def is_in_the_kernel() -> bool:
    """Whether a daemon in this network namespace has, or left, anything there."""
    return Path("/sys/fs/bpf/marchproxy", schema_directory()).exists()


async def ask(port: int) -> str:
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=False)) as client:
        return (await client.get(f"http://127.0.0.1:{port}/", timeout=LONGEST_S)).text


async def test_both_web_backends_and_both_echoes_answer_and_ctrl_c_ends_every_process(start):
    run = await start()
    await run.is_up()
    everybody = run.everybody()

    answers = {(await ask(run.ports[18080])).partition(";")[0] for _ in range(40)}
    assert answers == {"backend a", "backend b"}

    with trio.fail_after(LONGEST_S):
        async with await trio.open_tcp_stream("127.0.0.1", run.ports[18007]) as stream:
            await stream.send_all(b"hello")
            assert await receive_exactly(stream, 5) == b"hello"
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            await sock.connect(("127.0.0.1", run.ports[18007]))
            await sock.send(b"hello")
            assert await sock.recv(100) == b"hello"

    run.process.send_signal(signal.SIGINT)
    assert await run.ended() == 0
    assert len(everybody) >= 3  # itself, the daemon, a worker or more
    await until(lambda: not any(map(processes.is_alive, everybody)), what="every process is gone")


async def test_it_shows_the_tier_and_the_lines_to_try(start):
    run = await start()
    await run.is_up()
    told = run.told.read_text()
    assert re.search(r"application +600 +chosen", told)
    # Its services are on loopback, so nothing is put on the host's interfaces.
    assert re.search(r"ebpf +500 +(idle|refused)", told)
    assert not is_in_the_kernel()
    assert f"curl http://127.0.0.1:{run.ports[18080]}/" in told
    assert f"curl http://127.0.0.1:{run.ports[8080]}/admin/acceleration" in told


async def test_a_second_ctrl_c_does_not_wait_for_open_connections(start):
    run = await start(drain_timeout="60s")
    await run.is_up()
    everybody = run.everybody()
    async with await trio.open_tcp_stream("127.0.0.1", run.ports[18007]) as stream:
        await stream.send_all(b"a")
        assert await receive_exactly(stream, 1) == b"a"
        for count in (1, 2):
            run.process.send_signal(signal.SIGINT)
            await until(
                lambda count=count: (
                    run.told.read_text().count("Ending;") >= count or run.process.poll() is not None
                ),
                what="it heard the signal",
            )
        assert await run.ended() == 0
    assert "drain.cut_off" not in run.told.read_text()
    await until(lambda: not any(map(processes.is_alive, everybody)), what="every process is gone")


@pytest.mark.parametrize(
    ("port", "who"),
    [(18080, "service 'web'"), (19081, "the demo backend"), (8080, "the admin API")],
)
async def test_a_port_in_use_is_named_with_who_has_it_and_nothing_is_left(start, port, who):
    ports = {one: free_port() for one in (18080, 18007, 18201, 19081, 19082, 19007, 19201, 8080)}
    with socket.create_server(("127.0.0.1", ports[port])):
        run = await start(ports)
        assert await run.ended() == 4  # ListenError, docs/cli.md
        told = run.told.read_text()
        assert f"{who} cannot listen on tcp 127.0.0.1:{ports[port]}" in told
        assert f"(pid {os.getpid()})" in told
        assert "fix: " in told
    for one in ports.values():
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", one))


async def test_a_daemon_that_is_killed_ends_the_run_with_a_word(start):
    run = await start()
    await run.is_up()
    [daemon] = processes.children(run.process.pid)
    os.kill(daemon, signal.SIGKILL)
    assert await run.ended() == 1
    assert "killed by SIGKILL" in run.told.read_text()
