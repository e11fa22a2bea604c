"""Serves the admin API: opens its address, runs Hypercorn's trio worker on it, and gives the address back.

Owns the listening socket and, for a unix socket, its file. Knows nothing of endpoints.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import structlog
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.logging import Logger as HypercornLogger
from hypercorn.trio import serve

from marchproxy_core.admin.app import make_app
from marchproxy_core.admin.guard import check_listen_address
from marchproxy_core.config import UnixAddress
from marchproxy_core.errors import ListenError
from marchproxy_core.port_holder import port_holder
from marchproxy_core.services import Endpoint, Protocol

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework, ResponseSummary, WWWScope

    from marchproxy_core.admin.view import EngineView
    from marchproxy_core.config import Settings

log = structlog.get_logger()

_BACKLOG = 100
_HOW_TO_MOVE = "stop what listens there, or set ADMIN_LISTEN to another address"


async def serve_admin(
    view: EngineView,
    settings: Settings,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the admin API until cancelled; then the socket is closed, and a unix socket's file removed.

    Args:
        view: The engine to read.
        settings: ``ADMIN_LISTEN`` and ``ADMIN_TOKEN`` as they were at start; a change takes a restart.
        task_status: Started with the address, as ``127.0.0.1:8080`` or ``unix:/path``, once it listens.

    Raises:
        ConfigError: The address is open to the network and there is no token.
        ListenError: The address cannot be opened.
    """
    check_listen_address(view.config)
    with open_admin_socket(settings.admin_listen) as (listener, address):
        log.info("admin.started", address=address, token_needed=settings.admin_token is not None)

        async with trio.open_nursery() as nursery:
            # Hypercorn takes its sockets by number, and closes what it was given.
            await nursery.start(_run_hypercorn, make_app(view, settings), os.dup(listener.fileno()))
            task_status.started(address)


async def _run_hypercorn(
    app: ASGIFramework, fd: int, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    config = HypercornConfig()
    config.bind = [f"fd://{fd}"]
    config.logger_class = _Log
    config.include_server_header = False
    config.backlog = _BACKLOG
    # Longer than a reload may take: the worker also closes a connection that waits for our answer.
    config.read_timeout = 60
    await serve(app, config, task_status=task_status)


@contextmanager
def open_admin_socket(address: Endpoint | UnixAddress) -> Iterator[tuple[socket.socket, str]]:
    """Open the listening socket; yields it with its address as text (the kernel's choice for port 0).

    Nobody else may hold the address or one that overlaps it. Once it is open, a service of the same user may listen
    on every address of the same port: the kernel gives connections to the socket that is bound more exactly.

    Raises:
        ListenError: In use, no right, or not this host's, with what to do.
    """
    if isinstance(address, UnixAddress):
        with _unix_socket(Path(address.path)) as listener:
            yield listener, str(address)
        return
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((str(address.ip), address.port))
            # After bind, which without it fails when anybody is there: two daemons cannot share the address.
            # docs/decisions/0005.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ListenError(f"admin API: {address}: {_why(error, address)}") from error
        yield listener, str(Endpoint(address.ip, listener.getsockname()[1]))


def _why(error: OSError, address: Endpoint) -> str:
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(Protocol.TCP, address)
        return f"in use already{f' by {holder}' if holder else ''} - fix: {_HOW_TO_MOVE}"
    fixes = {
        errno.EACCES: "no right to open it - fix: choose a port from 1024 on in ADMIN_LISTEN, or grant "
        "CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "not an address of this host - fix: set ADMIN_LISTEN to one that "
        "'ip address' shows",
    }
    return fixes.get(error.errno or 0, f"{error.strerror} - fix: set ADMIN_LISTEN to another address")


@contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _remove_stale(path)
            listener.bind(str(path))
            made = os.lstat(path)
            # Nobody can connect before listen(), so there is no moment with wider rights.
            path.chmod(0o600)
            listener.listen(_BACKLOG)
        except OSError as error:
            reason = f"{error.strerror} - fix: make its directory, with the right to write there"
            raise ListenError(f"admin API: unix:{path}: {reason}") from error
        try:
            yield listener
        finally:
            _remove_own(path, made)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; refuse to touch anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(
            f"admin API: unix:{path}: a file that is no socket is in its place - fix: remove it, or set "
            "ADMIN_LISTEN to another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        # Non-blocking: a listener with a full backlog answers EAGAIN, and lives.
        visitor.setblocking(False)
        if visitor.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise ListenError(f"admin API: unix:{path}: in use already - fix: {_HOW_TO_MOVE}")
    path.unlink()
    log.info("admin.stale_socket_removed", path=str(path))


def _remove_own(path: Path, made: os.stat_result) -> None:
    """Remove the file, unless another daemon has put its own there since."""
    try:
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            path.unlink()
    except OSError as error:
        if error.errno != errno.ENOENT:
            log.warning("admin.socket_left_behind", path=str(path), error=str(error))


@final
class _Log(HypercornLogger):
    """Hypercorn's log as events: its errors and warnings. It tells of requests and of its start as we do."""

    def __init__(self, config: HypercornConfig) -> None:
        pass

    async def access(self, request: WWWScope, response: ResponseSummary, request_time: float) -> None:
        pass

    async def critical(self, message: str, *args: Any, **kwargs: Any) -> None:
        log.critical("admin.server_failed", message=message % args)

    async def error(self, message: str, *args: Any, **kwargs: Any) -> None:
        log.error("admin.server_failed", message=message % args)

    async def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        log.warning("admin.server_warned", message=message % args)

    async def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        pass

    async def debug(self, message: str, *args: Any, **kwargs: Any) -> None:
        pass

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        log.exception("admin.request_failed", message=message % args)

    async def log(self, level: int, message: str, *args: Any, **kwargs: Any) -> None:
        log.warning("admin.server_warned", message=message % args)
