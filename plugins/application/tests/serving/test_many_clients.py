"""Ten thousand kept connections, and two thousand heads that trickle, fit into bounded memory."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.testing import until
from marchproxy_core.testing.pytest_plugin import leave_out

WORKERS = 2
_SPARE = 300

CLIENT = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
port, count, said = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode().decode("unicode_escape").encode()
kept = []
for number in range(count):
    one = socket.socket()
    # Not all from one address: it has too few ports where others use them as well.
    one.bind((f"127.0.3.{number % 4 + 1}", 0))
    one.connect(("127.0.0.1", port))
    one.sendall(said)
    if said.endswith(b"\\r\\n\\r\\n"):
        assert one.recv(4096).startswith(b"HTTP/1.1 200 ")
    kept.append(one)
print("held", flush=True)
sys.stdin.read()
"""


def pss_bytes(pid):
    match = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(match[1]) * 1024


@asynccontextmanager
async def many(port, count, said):
    """Have so many clients that said something, for as long as the block runs."""
    command = [sys.executable, "-c", CLIENT, str(port), str(count), said]
    client = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with trio.fail_after(90):
            assert (await client.stdout.receive_some(100)).strip() == b"held"
        yield
    finally:
        client.kill()
        await client.wait()


@pytest.mark.parametrize(
    ("count", "said", "most_bytes"),
    [
        (10_000, r"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 60_000_000),
        (2_000, r"GET / HTTP/1.1\r\nX: ", 15_000_000),
    ],
    ids=["idle", "slow"],
)
async def test_many_clients_cost_little_and_another_one_is_served(
    serving, origin, record_property, count, said, most_bytes
):
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < count + _SPARE:
        leave_out(f"needs a hard limit of {count + _SPARE} open files: ulimit -Hn {count + _SPARE}")
    settings = Settings(worker_threads=WORKERS)
    async with origin() as a, serving(a, settings=settings) as site:
        pids = site.running.attachment.pool.pids
        before = sum(map(pss_bytes, pids))
        async with many(site.service.listen[0].port, count, said):
            await site.counts("connections_active", count)
            grown = sum(map(pss_bytes, pids)) - before
            record_property("grown_bytes", grown)
            assert grown < most_bytes
            assert (await (await site.client()).ask()).status == 200

        async def all_gone():
            return (await site.stats()).connections_active <= 1

        await until(all_gone, deadline_s=30)
