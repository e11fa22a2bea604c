"""All chains of the module: seven backends, and one proxy in front of them."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
import trio

from marchproxy_core.testing import until
from marchproxy_core.testing.pytest_plugin import leave_out
from tests.suites.chains import proxying, servers
from tests.suites.chains.scgi import Scgi
from tests.suites.chains.telling import Told

_LONGEST_S = 30.0


@attrs.frozen
class Chain:
    """A backend with the proxy before it."""

    backend: str
    port: int
    """Where the proxy takes requests for it."""
    told: Told


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], said: Path) -> None:
    def is_up() -> bool:
        assert process.poll() is None, said.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    trio.run(partial(until, is_up, deadline_s=_LONGEST_S, what=f"somebody at port {port}"))


def _start_backend(backend: servers.Backend, directory: Path, port: int, inner: int, held: ExitStack) -> Told:
    directory.mkdir()
    told = Told(directory / "told")
    held.callback(told.close)
    scgi = held.enter_context(Scgi(told.path))
    threading.Thread(target=scgi.serve_forever, daemon=True).start()
    held.callback(scgi.shutdown)
    try:
        process = servers.start(backend, servers.Place(directory, port, inner, scgi.port, told.path))
    except FileNotFoundError:
        leave_out(f"no {backend.name}: install {backend.package}")
    held.callback(_end, process)
    _wait_for(port, process, directory / "said")
    return told


@pytest.fixture(scope="session")
def chains() -> Iterator[dict[str, Chain]]:
    """A chain to each backend, by its name."""
    with ExitStack() as held:
        directory = Path(held.enter_context(TemporaryDirectory(prefix="chains")))
        ports = iter(_free_ports(3 * len(servers.BACKENDS) + 1))
        chains, services = {}, ""
        for backend in servers.BACKENDS:
            port, back, inner = next(ports), next(ports), next(ports)
            told = _start_backend(backend, directory / backend.name, back, inner, held)
            chains[backend.name] = Chain(backend.name, port, told)
            services += (
                f"  - {{name: {backend.name}, listen: 127.0.0.1:{port}, http: true, websocket: true,"
                f" backends: [127.0.0.1:{back}]}}\n"
            )
        process = proxying.start(directory, services, admin_port=next(ports))
        held.callback(_end, process)
        for chain in chains.values():
            _wait_for(chain.port, process, directory / "log")
        yield chains
