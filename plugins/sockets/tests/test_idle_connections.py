"""Ten thousand idle connections fit into 100 MB; measured as the memory of the worker processes."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.services import Backend, Endpoint
from marchproxy_core.testing import until
from marchproxy_core.testing.pytest_plugin import leave_out

CONNECTIONS = 10_000
WORKERS = 2
_SPARE = 200

SERVER = """
import resource, select, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen(4096)
print(listening.getsockname()[1], flush=True)
kept = []
while True:
    kept.append(listening.accept()[0])
    kept[-1].send(b"x")
"""

CLIENT = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
kept = []
for number in range(int(sys.argv[2])):
    one = socket.socket()
    # Not all from one address: it has too few ports where others use them as well.
    one.bind((f"127.0.2.{number % 4 + 1}", 0))
    one.connect(("127.0.0.1", int(sys.argv[1])))
    kept.append(one)
for one in kept:
    assert one.recv(1) == b"x"
print("held", flush=True)
sys.stdin.read()
"""


def pss_bytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    match = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


@pytest.fixture
def server():
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process
        process.kill()


async def test_ten_thousand_idle_connections_cost_less_than_100_mb(relaying, server, record_property):
    # Two descriptors each, over two workers; the server and the client hold one each.
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < CONNECTIONS + _SPARE:
        leave_out(
            f"needs a hard limit of {CONNECTIONS + _SPARE} open files: ulimit -Hn {CONNECTIONS + _SPARE}"
        )
    settings = Settings(worker_threads=WORKERS)
    backend = Backend(endpoint=Endpoint.parse(f"127.0.0.1:{int(server.stdout.readline())}"))
    async with relaying(backend, settings=settings) as (running, service, _):
        pids = running.attachment.pool.pids
        before = sum(pss_bytes(pid) for pid in pids)
        port = service.listen[0].port
        command = [sys.executable, "-c", CLIENT, str(port), str(CONNECTIONS)]
        client = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert client.stdout is not None
            with trio.fail_after(120):
                assert (await client.stdout.receive_some(100)).strip() == b"held"

            async def all_counted() -> bool:
                return (await running.stats_of(service)).connections_active == CONNECTIONS

            await until(all_counted)
            after = sum(pss_bytes(pid) for pid in pids)
        finally:
            client.kill()
            server.kill()
            await client.wait()
        record_property("worker_bytes", f"{before} idle, {after} with {CONNECTIONS} connections")
        assert after < 100_000_000

        async def all_gone() -> bool:
            return (await running.stats_of(service)).connections_active == 0

        await until(all_gone, deadline_s=30)
