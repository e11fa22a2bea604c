"""The first run: demo backends and the daemon, until Ctrl-C ends all of it. `make run` runs it.

The daemon is a process of its own, as `marchproxy run` starts it, in a session of its own: Ctrl-C reaches this program
alone, which then has the daemon drain. A second Ctrl-C has it end at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import click
import trio
from demo_backend import FIRST, cannot_listen, run_program, serve_backends

from marchproxy_core.admin.answers import ReadyzAnswer
from marchproxy_core.cli.client import AdminClient
from marchproxy_core.config import Config, UnixAddress, load
from marchproxy_core.errors import AdminError, MarchProxyError
from marchproxy_core.plugins import discover
from marchproxy_core.services import Endpoint, Protocol

_PROGRAM = Path(sys.executable).with_name("marchproxy")
_LOOK_S = 0.05


async def run(file: Path) -> int:
    """Run everything until told to end; return the exit status.

    Raises:
        MarchProxyError: Something could not start, and what to do.
    """
    config = load(file, os.environ, discover().names)
    _check_admin_address(config)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_backends, config.services)
            async with _daemon(file) as daemon:
                nursery.start_soon(_pass_on, signals, daemon)
                if await _is_ready(daemon, config):
                    await _show(config)
                status = await daemon.wait()
            nursery.cancel_scope.cancel()
    if status < 0:  # a daemon that exits by itself has said why
        raise MarchProxyError(
            f"the daemon was killed by {signal.Signals(-status).name}; its clients were cut off"
        )
    return status


@asynccontextmanager
async def _daemon(file: Path) -> AsyncIterator[trio.Process]:
    """Start the daemon; at the end of the block it is gone."""
    process = await trio.lowlevel.open_process(
        [str(_PROGRAM), "run", "--config", str(file)], stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await process.wait()


async def _pass_on(signals: AsyncIterator[int], daemon: trio.Process) -> None:
    async for _ in signals:
        click.echo("\nEnding; once more to end at once.", err=True)
        daemon.terminate()


async def _is_ready(daemon: trio.Process, config: Config) -> bool:
    """Wait until every service is carried; false when the daemon ends before. It says itself why."""
    client = AdminClient(address=str(config.settings.admin_listen), token=config.settings.admin_token)
    while daemon.poll() is None:
        try:
            if (await trio.to_thread.run_sync(client.get, "/readyz", ReadyzAnswer, (200, 503))).ready:
                return True
        except AdminError:
            pass  # it does not listen yet
        await trio.sleep(_LOOK_S)
    return False


async def _show(config: Config) -> None:
    environ = os.environ | {"ADMIN_LISTEN": str(config.settings.admin_listen)}
    click.echo()
    sys.stdout.flush()
    await trio.run_process([str(_PROGRAM), "explain"], env=environ, check=False)
    click.echo()
    for line in _lines_to_try(config):
        click.echo(line)
    click.echo("\nCtrl-C ends all of it.")
    sys.stdout.flush()


def _lines_to_try(config: Config) -> Iterator[str]:
    at = {service.name: service.listen[0] for service in config.services}
    yield "Services:"
    for service in config.services:
        listen = ", ".join(map(str, service.listen))
        backends = ", ".join(str(backend.endpoint) for backend in service.backends)
        yield f"  {service.name:10} {service.protocol}  {listen} -> {backends}"
    yield "\nTry, in another terminal:"
    if "web" in at:
        yield _needing("curl", f"curl http://{at['web']}/")
        yield _needing("wrk", f"wrk -t1 -c50 -d5s http://{at['web']}/")
    if "echo" in at:
        yield f"  bash -c 'exec 3<>/dev/tcp/{_slashed(at['echo'])}; echo hello >&3; head -n 1 <&3'"
    if "echo-udp" in at:
        yield f"  bash -c 'exec 3<>/dev/udp/{_slashed(at['echo-udp'])}; echo hello >&3; head -n 1 <&3'"
    if "iperf" in at:
        server = next(service for service in config.services if service.name == "iperf").backends[0].endpoint
        bulk = at["iperf"]
        yield _needing(
            "iperf3", f"iperf3 -s -1 -p {server.port} & sleep 1; iperf3 -c {bulk.ip} -p {bulk.port}"
        )
    if not isinstance(config.settings.admin_listen, UnixAddress):
        yield _needing("curl", f"curl http://{config.settings.admin_listen}/admin/acceleration")
    yield f"  {_quoted(_PROGRAM)} status --admin {config.settings.admin_listen}"


def _needing(program: str, line: str) -> str:
    return f"  {line}" if shutil.which(program) else f"  {line}   # first: apt-get install {program}"


def _slashed(endpoint: Endpoint) -> str:
    return f"{endpoint.ip}/{endpoint.port}"


def _quoted(program: Path) -> str:
    try:
        shown = program.relative_to(Path.cwd())
    except ValueError:
        shown = program
    return f'"{shown}"' if " " in str(shown) else str(shown)


def _check_admin_address(config: Config) -> None:
    """Look before the daemon does: another daemon there would answer that it is ready.

    Raises:
        ListenError: Somebody listens on the admin API's address.
    """
    address = config.settings.admin_listen
    if isinstance(address, UnixAddress):
        return
    family = socket.AF_INET6 if ":" in str(address.ip) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((str(address.ip), address.port))
            sock.listen(1)  # SO_REUSEADDR lets bind(2) pass where somebody is bound but does not listen
        except OSError as error:
            fix = "stop that, or run it as: ADMIN_LISTEN=127.0.0.1:8081 make run"
            raise cannot_listen("the admin API", Protocol.TCP, address, error, fix=fix) from error


@click.command()
@click.argument("file", default=FIRST, type=click.Path(path_type=Path, dir_okay=False))
def main(file: Path) -> None:
    """Serve FILE with the daemon, and the demo backends behind it, until Ctrl-C."""
    run_program(run, file)


if __name__ == "__main__":
    main()
