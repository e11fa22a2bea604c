"""Active health checks and the board's clock: the only file here that does I/O.

Owns one task per checked backend, and tells the board; what a failure means is the board's to decide.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, final

import attrs
import structlog
import trio

from marchproxy_core.backends import http_status
from marchproxy_core.backends.health_board import HealthBoard
from marchproxy_core.backends.health_state import CheckResult
from marchproxy_core.model import Health
from marchproxy_core.services import Endpoint, HealthCheck, HealthCheckKind, Service

if TYPE_CHECKING:
    from marchproxy_core.backends.health_board import HealthChange
    from marchproxy_core.table import Table

log = structlog.get_logger()

JITTER = 0.1
"""Part of the interval by which each check comes earlier or later, so that checks do not march in step."""
_SPREAD = 0.25  # part of the interval over which the first checks are spread
_CLOSE_GRACE_S = 0.2

# What only says that this host has run out of something says nothing about the backend.
_OWN_TROUBLE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES}
)


class CannotCheck(Exception):
    """A check could not be made for want of something on this host; the text says of what."""


Check = Callable[[Endpoint, HealthCheck], Awaitable[CheckResult]]


async def run_health_checks(
    services: Table[tuple[Service, ...]],
    board: HealthBoard,
    changed: Callable[[str], None],
    *,
    check: Check | None = None,
    random: Random | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Check backends and keep the board's time until cancelled.

    While it runs it is the board's listener: every change, whoever caused it, is logged and passed on. A
    reload first has ``board.configure`` called, then the table published; tasks of unchanged backends run on.

    Args:
        services: The services now, and each later set.
        board: The board that hears of the checks.
        changed: Called with a service's name after a change of one of its backends, in the trio thread; must
            not block nor change the board.
        check: Makes one check; :func:`check_backend` when None.
        random: Source of the jitter.
        task_status: ``started()`` when the first tasks run.

    Raises:
        Nothing of its own; ends by cancellation only.
    """
    watch = _Watch(board=board, changed=changed, check=check or check_backend, random=random or Random())
    board.listen(watch.hear)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.keep_time)
            watch.apply(services.current, nursery)
            task_status.started()
            async for current in services.changes():
                watch.apply(current, nursery)
    finally:
        board.listen(None)


@attrs.frozen
class _Target:
    """What one task checks; another check of the same backend is another target."""

    service: str
    backend: Endpoint
    check: HealthCheck


@final
@attrs.define(eq=False, kw_only=True)
class _Watch:
    """The tasks' common ground."""

    board: HealthBoard
    changed: Callable[[str], None]
    check: Check
    random: Random
    _heard: trio.Event = attrs.field(factory=trio.Event)
    _running: dict[_Target, trio.CancelScope] = attrs.field(factory=dict)

    def hear(self, change: HealthChange) -> None:
        """Log a change, pass it on, and let the clock look for the next deadline."""
        _log_change(change)
        self._heard.set()
        self.changed(change.service)

    def apply(self, services: tuple[Service, ...], nursery: trio.Nursery) -> None:
        """Start and end tasks so that each checked backend has one."""
        wanted = {
            _Target(service.name, backend.endpoint, service.health_check)
            for service in services
            if service.health_check is not None
            for backend in service.backends
        }
        for target in self._running.keys() - wanted:
            self._running.pop(target).cancel()
        for target in wanted - self._running.keys():
            scope = self._running[target] = trio.CancelScope()
            nursery.start_soon(self.keep_checking, target, scope)

    async def keep_time(self) -> None:
        """Readmit ejected backends when their pause is over."""
        while True:
            self._heard = trio.Event()
            deadline = self.board.next_deadline()
            with trio.move_on_at(deadline if deadline is not None else float("inf")):
                await self._heard.wait()
            self.board.advance(trio.current_time())

    async def keep_checking(self, target: _Target, scope: trio.CancelScope) -> None:
        """Check one backend at its interval, give or take the jitter."""
        interval_s = target.check.interval_s
        able = True
        with scope:
            await trio.sleep(interval_s * _SPREAD * self.random.random())
            while True:
                began = trio.current_time()
                able = await self._check_once(target, able)
                pause_s = interval_s * self.random.uniform(1 - JITTER, 1 + JITTER)
                await trio.sleep_until(began + pause_s)

    async def _check_once(self, target: _Target, able: bool) -> bool:
        """Make one check and record it; return whether it could be made. Only the first that could not is logged."""
        try:
            result = await self.check(target.backend, target.check)
        except CannotCheck as error:
            if able:
                log.warning(
                    "backend.check_skipped",
                    service=target.service,
                    backend=str(target.backend),
                    reason=str(error),
                )
            return False
        self.board.record_check(target.service, target.backend, result, now=trio.current_time())
        return True


def _log_change(change: HealthChange) -> None:
    service, backend, reason = change.service, str(change.backend), change.reason
    if change.now is Health.DOWN:
        log.warning("backend.went_down", service=service, backend=backend, reason=reason)
    elif change.now is Health.EJECTED:
        log.warning("backend.ejected", service=service, backend=backend, reason=reason)
    elif change.was is Health.EJECTED:
        log.info("backend.readmitted", service=service, backend=backend, reason=reason)
    elif change.now is Health.UP:
        log.info("backend.went_up", service=service, backend=backend, reason=reason)


async def check_backend(backend: Endpoint, check: HealthCheck) -> CheckResult:
    """Make one check over a connection of its own, which is closed when this returns.

    Args:
        backend: The backend; the check's own port goes before the backend's.
        check: What to do, and for how long at most.

    Raises:
        CannotCheck: This host lacks what a check needs, descriptors for one; nothing is known of the backend.
    """
    target = Endpoint(backend.ip, check.port or backend.port)
    family = socket.AF_INET6 if backend.ip.version == 6 else socket.AF_INET
    try:
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise CannotCheck(_describe(error)) from error
    with sock:
        began = trio.current_time()
        reason = f"timed out after {check.timeout_s:g} s"
        with trio.move_on_after(check.timeout_s):
            reason = await _attempt(sock, target, check)
        latency_s = trio.current_time() - began
        await _close_gently(sock)
    return CheckResult(ok=not reason, reason=reason, latency_s=latency_s)


async def _attempt(sock: trio.socket.SocketType, target: Endpoint, check: HealthCheck) -> str:
    """Return why the check failed, empty when it passed."""
    try:
        await sock.connect((str(target.ip), target.port))
        if check.kind is HealthCheckKind.TCP:
            return ""
        status = await _ask(sock, http_status.request(check.host or _authority(target), check.path))
    except OSError as error:
        if error.errno in _OWN_TROUBLE:
            raise CannotCheck(_describe(error)) from error
        return _describe(error)
    except ValueError as error:
        return str(error)
    first, last = check.expect_status
    return "" if first <= status <= last else f"status {status}"


async def _ask(sock: trio.socket.SocketType, request: bytes) -> int:
    while request:
        request = request[await sock.send(request) :]
    answer = b""
    while (status := http_status.status_of(answer)) is None:
        chunk = await sock.recv(http_status.MAX_HEAD - len(answer))
        if not chunk:
            raise http_status.BadAnswer("closed before it sent a status")
        answer += chunk
    return status


async def _close_gently(sock: trio.socket.SocketType) -> None:
    """End the connection with a FIN and not a reset, which a server may log or count against us.

    A close with unread bytes in the receive buffer sends a reset, so what a greeting server sends is read,
    for a short while. The caller closes the socket.
    """
    with contextlib.suppress(OSError), trio.move_on_after(_CLOSE_GRACE_S):
        sock.shutdown(socket.SHUT_WR)
        left = http_status.MAX_HEAD
        while left > 0 and (chunk := await sock.recv(left)):
            left -= len(chunk)


def _authority(target: Endpoint) -> str:
    return str(target).removesuffix(":80")


def _describe(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
