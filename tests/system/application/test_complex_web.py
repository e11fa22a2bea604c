"""examples/complex_web, word by word as its README has it, on ports of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio
from system_rig.client import LONGEST_S
from system_rig.daemon import Daemon
from system_rig.service import Service
from system_rig.site import free_port
from system_rig.web_client import ask, web_socket

from marchproxy_core.config import SETTINGS
from marchproxy_core.testing import until
from marchproxy_core.testing.pytest_plugin import leave_out

EXAMPLE = Path(__file__).parents[3] / "examples/complex_web"
PROGRAM = Path(sys.executable).with_name("marchproxy")


@attrs.define(eq=False)
class Example:
    """A copy of it that runs."""

    folder: Path
    daemon: Daemon
    web: Service

    @property
    def url(self) -> str:
        return f"https://localhost:{self.web.port}"

    async def run(self, *command: str | Path, status: int = 0) -> str:
        """Run a command in its folder; return what it writes."""
        with trio.fail_after(LONGEST_S):
            done = await trio.run_process(
                command,
                cwd=self.folder,
                env=self.daemon.environ,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == status, done
        return done.stdout.decode()

    async def curl(self, *options: str) -> tuple[list[str], dict[str, str], str]:
        """Ask as the README does; returns the words of the status line, fields and body."""
        if shutil.which("curl") is None:
            leave_out("needs curl: apt install curl")
        written = await self.run("curl", "--cacert", "keys/ca.pem", "-si", *options)
        head, _, body = written.partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        return status.split(), {name.lower(): value for name, value in fields.items()}, body

    async def token(self, name: str) -> str:
        return (await self.run(sys.executable, "make_keys.py", "token", name)).strip()


@pytest.fixture
async def example(tmp_path):
    """Keys, backend and daemon, as the README starts them."""
    folder = tmp_path / "complex_web"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("keys", "__pycache__"))
    ports = {18443: free_port(), 19480: free_port()}
    for path in folder.iterdir():
        text = path.read_text()
        path.write_text(re.sub(r"\b(18443|19480)\b", lambda found: str(ports[int(found[0])]), text))
    admin = f"unix:{tmp_path / 'admin.sock'}"
    environ = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environ |= {"ADMIN_LISTEN": admin, "WORKER_THREADS": "2"}
    log = tmp_path / "daemon.log"
    where = {"cwd": folder, "env": environ, "stdin": subprocess.DEVNULL}
    with log.open("wb") as written, (tmp_path / "backend.log").open("wb") as told:
        await trio.run_process([sys.executable, "make_keys.py"], cwd=folder)
        backend = await trio.lowlevel.open_process(
            [sys.executable, "backend.py"], stdout=told, stderr=told, **where
        )
        run = [PROGRAM, "run", "--config", "rules.yaml", "--log-format", "json"]
        daemon = Daemon(
            await trio.lowlevel.open_process(run, stdout=written, stderr=written, **where),
            admin,
            log,
            environ,
            PROGRAM,
        )
    try:
        running = Example(folder, daemon, Service("complex-web", ports[18443]))
        running.web.options["backend"] = ports[19480]
        await until(lambda: daemon.answers("/readyz"), deadline_s=LONGEST_S, what="the daemon is ready")
        await daemon.told("backend.went_up")
        yield running
    finally:
        with trio.CancelScope(shield=True):
            for client in running.web.clients:
                client.close()
            for process in (daemon.process, backend):
                if process.poll() is None:
                    process.terminate()
                    with trio.move_on_after(LONGEST_S):
                        await process.wait()
                    process.kill()
                await process.wait()
            assert not daemon.faults()


async def test_the_example_does_what_its_readme_says(example):
    await asks_without_a_token_and_with_one(example)
    await gets_the_page_from_the_cache(example)
    await is_explained(example)
    await opens_web_sockets_that_are_told_of_the_end(example)


async def asks_without_a_token_and_with_one(example):
    status, fields, _ = await example.curl(f"{example.url}/api/whoami")
    assert status[:2] == ["HTTP/2", "401"]
    assert fields["www-authenticate"] == 'Bearer realm="complex-web"'
    await example.daemon.told("request.answered", reason="token_missing")

    bearer = f"Authorization: Bearer {await example.token('alice')}"
    status, fields, body = await example.curl(
        "-H", bearer, "-H", "X-User: mallory", f"{example.url}/api/whoami"
    )
    assert status[:2] == ["HTTP/2", "200"]
    whoami = json.loads(body)
    assert (whoami["x-user"], whoami["x-forwarded-proto"]) == ("alice", "https")
    assert whoami["x-request-id"] == fields["x-request-id"]

    forged = bearer[:-10] + ("AAAAAA" if bearer[-10:-4] != "AAAAAA" else "BBBBBB") + bearer[-4:]
    assert (await example.curl("-H", forged, f"{example.url}/api/whoami"))[0][1] == "401"
    await example.daemon.told("request.answered", reason="token_signature")


async def gets_the_page_from_the_cache(example):
    status, fields, _ = await example.curl("--compressed", f"{example.url}/page")
    assert status[:2] == ["HTTP/2", "200"]
    if "brotli" in await example.run("curl", "--version"):
        assert fields["content-encoding"] == "br"
    assert "stored" in fields["cache-status"]

    async def is_hit() -> bool:  # each worker has its own cache, and the kernel picks the worker
        _, fields, body = await example.curl("--compressed", f"{example.url}/page")
        assert "<title>complex-web</title>" in body
        return "hit" in fields["cache-status"]

    await until(is_hit, deadline_s=LONGEST_S, what="the page comes from the cache")


async def is_explained(example):
    url = f"{example.url}/api/whoami"
    config = ("--config", "rules.yaml")
    # Without a token no backend would be asked, which the exit status says.
    told = await example.run(PROGRAM, "explain", "request", "GET", url, *config, status=1)
    for word in ("complex-web", "application", "token"):
        assert word in told
    bearer = f"Authorization: Bearer {await example.token('alice')}"
    told = await example.run(PROGRAM, "explain", "request", "-H", bearer, "GET", url, *config)
    assert str(example.web.options["backend"]) in told


async def opens_web_sockets_that_are_told_of_the_end(example):
    context = ssl.create_default_context(cafile=str(example.folder / "keys/ca.pem"))
    assert (await ask(example.web, "/api/echo", context)).status == 401
    bearer = f"Bearer {await example.token('alice')}"
    by_token = await web_socket(example.web, context, "/api/echo", named=False, authorization=bearer)
    open_to_all = await web_socket(example.web, context, "/page/echo", named=False)
    assert await by_token.echoes("hello through the proxy")
    assert await open_to_all.echoes()
    example.daemon.signal(signal.SIGTERM)
    assert [await by_token.fate(), await open_to_all.fate()] == [1001, 1001]
    assert await example.daemon.exit_status() == 0
