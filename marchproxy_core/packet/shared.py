"""The packet engine of this process: one set of tables in each network namespace, shared by all tiers that run it."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import structlog
import trio

from marchproxy_core.bpf import PinDirectory, PinMismatch
from marchproxy_core.packet.control import Control
from marchproxy_core.packet.retiring import retire
from marchproxy_core.packet.tables import SCHEMA, Tables

if TYPE_CHECKING:
    from marchproxy_core.config import Settings

log = structlog.get_logger()

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, since Linux 5.14
_FORWARDING = ("ipv4/conf/{}/forwarding", "ipv6/conf/{}/forwarding")
_CLOSE_S = 4.0


@final
@attrs.frozen(kw_only=True, eq=False)
class PacketEngine:
    """The open tables and who keeps them."""

    tables: Tables
    control: Control
    pins: PinDirectory
    stays: Callable[[], bool]
    """Whether all is to stay as it is when this is closed: the daemon ends, and its successor takes over."""


@attrs.define(eq=False)
class _Shared:
    engine: PacketEngine
    undo: contextlib.ExitStack
    users: int = 1


_engines: dict[str, _Shared] = {}
_opening = trio.Lock()


def never() -> bool:
    """Say no."""
    return False


@asynccontextmanager
async def shared_engine(settings: Settings, stays: Callable[[], bool] = never) -> AsyncIterator[PacketEngine]:
    """Yield the engine of this network namespace: the one that another tier has open, else opened now.

    Flows that a daemon before this one left in pinned tables go on. The last who leaves closes it and removes
    the pins: an orderly end leaves nothing behind, but where ``stays`` says so.

    Args:
        settings: Those that the daemon started with.
        stays: ``AttachContext.stays``.

    Raises:
        PinError: Another daemon has the tables.
        TierUnavailable: Tables of an earlier daemon do not fit, and their flows have not ended.
        BpfError, OSError: A table could not be made.
    """
    name = await trio.to_thread.run_sync(schema_directory)
    async with _opening:
        if name in _engines:
            _engines[name].users += 1
        else:
            _engines[name] = await trio.to_thread.run_sync(_open, settings, name, stays)
    shared = _engines[name]
    try:
        yield shared.engine
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
            async with _opening:
                shared.users -= 1
                if not shared.users:
                    del _engines[name]
                    await trio.to_thread.run_sync(shared.undo.close)


def schema_directory() -> str:
    """Return the name of the directory for pins: the tables' schema, and the network namespace they are of."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            (cookie,) = struct.unpack("Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
        except OSError:  # an inode is used again after its namespace is gone, a cookie never
            cookie = Path("/proc/thread-self/ns/net").stat().st_ino
    return f"{SCHEMA}-net-{cookie}"


def _open(settings: Settings, name: str, stays: Callable[[], bool]) -> _Shared:
    with contextlib.ExitStack() as undo:
        pins = PinDirectory.open(name)
        undo.callback(pins.close)
        _retire_other_schemas(pins, settings)
        is_taken_over = bool(pins.names())
        tables = _open_tables(settings, pins)
        undo.callback(lambda: None if stays() else pins.unpin_all())
        undo.callback(tables.close)
        control = Control(tables, settings)
        undo.callback(control.close)
        undo.enter_context(_loopback_forwards(stays, is_taken_over=is_taken_over))
        undo.callback(lambda: log.info("tables.kept", path=str(pins.path)) if stays() else None)
        return _Shared(PacketEngine(tables=tables, control=control, pins=pins, stays=stays), undo.pop_all())


def _open_tables(settings: Settings, pins: PinDirectory) -> Tables:
    try:
        return Tables.open(settings, pins)
    except PinMismatch as error:
        retire(pins, f"{error.path.name}: {'; '.join(error.differences)}", settings.drain_timeout)
        return Tables.open(settings, pins)


def _retire_other_schemas(own: PinDirectory, settings: Settings) -> None:
    _, _, namespace = own.path.name.partition("-")
    for path in own.path.parent.glob(f"*-{namespace}"):
        if path != own.path and any(path.iterdir()):
            with PinDirectory.open(path.name) as other:
                reason = f"need tables of schema {SCHEMA}, have those of schema {path.name.partition('-')[0]}"
                retire(other, reason, settings.drain_timeout)


@contextlib.contextmanager
def _loopback_forwards(stays: Callable[[], bool], *, is_taken_over: bool) -> Iterator[None]:
    """Let the engine ask for routes as if packets came from the loopback interface (c/routes.h).

    The kernel answers nobody who asks for an interface that does not forward. This one has no packets to forward
    but those that the host sends to itself, so nothing else changes. What it was before a daemon that was killed is
    not known; then it gets what all interfaces have.
    """
    # /proc/sys/net is that of the reading thread's namespace.
    sysctls = Path("/proc/sys/net")
    asked = "all" if is_taken_over else "lo"
    before = {
        sysctls / name.format("lo"): path.read_text(encoding="ascii")
        for name in _FORWARDING
        if (path := sysctls / name.format(asked)).exists()
    }
    for path in before:
        path.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        for path, value in before.items() if not stays() else ():
            path.write_text(value, encoding="ascii")
