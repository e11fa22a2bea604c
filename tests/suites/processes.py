"""Real programs on ports of 127.0.0.1, for the suites: the daemon, and who talks with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import trio

from marchproxy_core.config import SETTINGS
from marchproxy_core.testing import until

LONGEST_S = 30.0
_PROGRAM = Path(sysconfig.get_path("scripts")) / "marchproxy"


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


@contextmanager
def running(
    command: list[str], directory: Path, *, ports: list[int], environ: Mapping[str, str] = os.environ
) -> Iterator[Path]:
    """Run a program until the end of the block; the value is the file with what it says.

    Args:
        command: The program and its arguments.
        directory: Where it is at home.
        ports: Those that it listens on; the block begins when it does.
        environ: Its environment.

    Raises:
        FileNotFoundError: There is no such program.
    """
    said = directory / "said"
    with said.open("wb") as written:
        process = subprocess.Popen(
            command, cwd=directory, env=environ, stdin=subprocess.DEVNULL, stdout=written, stderr=written
        )
    try:
        for port in ports:
            _wait_for(port, process, said)
        yield said
    finally:
        _end(process)


@contextmanager
def proxy(directory: Path, services: str, *, ports: list[int]) -> Iterator[Path]:
    """Run the daemon with one worker until the end of the block; the value is its log.

    Args:
        directory: For its file and its log; made.
        services: The list of them, as YAML.
        ports: Those that it listens on.
    """
    directory.mkdir()
    file = directory / "marchproxy.yaml"
    file.write_text(f"services:\n{services}")
    environ = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    (admin,) = free_ports(1)
    environ |= {"WORKER_THREADS": "1", "DRAIN_TIMEOUT": "1s", "ADMIN_LISTEN": f"127.0.0.1:{admin}"}
    command = [str(_PROGRAM), "run", "--config", str(file)]
    with running(command, directory, ports=ports, environ=environ) as log:
        yield log


def _wait_for(port: int, process: subprocess.Popen[bytes], said: Path) -> None:
    def is_up() -> bool:
        assert process.poll() is None, said.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    trio.run(partial(until, is_up, deadline_s=LONGEST_S, what=f"somebody at port {port}"))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
