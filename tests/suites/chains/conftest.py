"""All chains of the suite: seven backends, and one proxy in front of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest

from marchproxy_core.testing.pytest_plugin import leave_out
from tests.suites.chains import servers
from tests.suites.chains.scgi import Scgi
from tests.suites.chains.telling import Told
from tests.suites.processes import free_ports, proxy, running


@attrs.frozen
class Chain:
    """A backend with the proxy before it."""

    port: int
    """Where the proxy takes requests for it."""
    told: Told


def start_backend(backend: servers.Backend, directory: Path, port: int, held: ExitStack) -> Told:
    directory.mkdir()
    told = Told(directory / "told")
    held.callback(told.close)
    scgi = held.enter_context(Scgi(told.path))
    threading.Thread(target=scgi.serve_forever, daemon=True).start()
    held.callback(scgi.shutdown)
    (inner,) = free_ports(1)
    place = servers.Place(directory, port, inner, scgi.port, told.path)
    try:
        held.enter_context(
            running(backend.command(place), directory, ports=[port], environ=servers.environ_at(place))
        )
    except FileNotFoundError:
        leave_out(f"no {backend.name}: install {backend.package}")
    return told


@pytest.fixture(scope="session")
def chains() -> Iterator[dict[str, Chain]]:
    """A chain to each backend, by its name."""
    with ExitStack() as held:
        directory = Path(held.enter_context(TemporaryDirectory(prefix="chains")))
        ports = free_ports(2 * len(servers.BACKENDS))
        chains, services = {}, ""
        for number, backend in enumerate(servers.BACKENDS):
            port, back = ports[2 * number : 2 * number + 2]
            chains[backend.name] = Chain(port, start_backend(backend, directory / backend.name, back, held))
            services += (
                f"  - {{name: {backend.name}, listen: 127.0.0.1:{port}, http: true, websocket: true,"
                f" backends: [127.0.0.1:{back}]}}\n"
            )
        ours = [chain.port for chain in chains.values()]
        held.enter_context(proxy(directory / "proxy", services, ports=ours))
        yield chains
