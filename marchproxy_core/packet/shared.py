"""The packet engine of this process: one set of tables in each network namespace, shared by all tiers that run it."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import structlog
import trio

from marchproxy_core.bpf import PinDirectory, PinMismatch
from marchproxy_core.packet.control import Control
from marchproxy_core.packet.tables import SCHEMA, Tables

if TYPE_CHECKING:
    from marchproxy_core.config import Settings

log = structlog.get_logger()

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, since Linux 5.14
_FORWARDING = ("ipv4/conf/lo/forwarding", "ipv6/conf/lo/forwarding")
_CLOSE_S = 4.0


@final
@attrs.frozen(kw_only=True, eq=False)
class PacketEngine:
    """The open tables and who keeps them."""

    tables: Tables
    control: Control
    pins: PinDirectory

    def close(self) -> None:
        """Close all, and remove what is pinned; blocks."""
        self.control.close()
        self.tables.close()
        self.pins.unpin_all()
        self.pins.close()


@attrs.define(eq=False)
class _Shared:
    engine: PacketEngine
    undo: contextlib.ExitStack
    users: int = 1


_engines: dict[str, _Shared] = {}
_opening = trio.Lock()


@asynccontextmanager
async def shared_engine(settings: Settings) -> AsyncIterator[PacketEngine]:
    """Yield the engine of this network namespace: the one that another tier has open, else opened now.

    Flows that a daemon before this one left in pinned tables go on. The last who leaves closes it and removes
    the pins: an orderly end leaves nothing behind.

    Raises:
        PinError: Another daemon has the tables.
        BpfError, OSError: A table could not be made.
    """
    name = await trio.to_thread.run_sync(schema_directory)
    async with _opening:
        if name in _engines:
            _engines[name].users += 1
        else:
            _engines[name] = await trio.to_thread.run_sync(_open, settings, name)
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


def _open(settings: Settings, name: str) -> _Shared:
    with contextlib.ExitStack() as undo:
        pins = PinDirectory.open(name)
        undo.callback(pins.close)
        tables = _open_tables(settings, pins)
        undo.callback(pins.unpin_all)
        undo.callback(tables.close)
        control = Control(tables, settings)
        undo.callback(control.close)
        undo.enter_context(_loopback_forwards())
        return _Shared(PacketEngine(tables=tables, control=control, pins=pins), undo.pop_all())


def _open_tables(settings: Settings, pins: PinDirectory) -> Tables:
    try:
        return Tables.open(settings, pins)
    except PinMismatch as error:
        log.warning("tables.discarded", error=str(error))
        pins.unpin_all()
        return Tables.open(settings, pins)


@contextlib.contextmanager
def _loopback_forwards() -> Iterator[None]:
    """Let the engine ask for routes as if packets came from the loopback interface (c/routes.h).

    The kernel answers nobody who asks for an interface that does not forward. This one has no packets to forward
    but those that the host sends to itself, so nothing else changes.
    """
    # /proc/sys/net is that of the reading thread's namespace.
    paths = [path for name in _FORWARDING if (path := Path("/proc/sys/net", name)).exists()]
    before = {path: path.read_text(encoding="ascii") for path in paths}
    for path in before:
        path.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        for path, value in before.items():
            path.write_text(value, encoding="ascii")
