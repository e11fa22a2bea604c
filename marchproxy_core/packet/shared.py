"""The packet engine of this process: one set of tables in each network namespace, shared by all tiers that run it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import structlog
import trio

from marchproxy_core.bpf import PinDirectory, PinMismatch
from marchproxy_core.packet.control import Control
from marchproxy_core.packet.left_behind import (
    directories_with_pins,
    forwarding_of,
    network_namespace,
    set_loopback_forwarding,
)
from marchproxy_core.packet.retiring import retire
from marchproxy_core.packet.tables import SCHEMA, Tables

if TYPE_CHECKING:
    from marchproxy_core.config import Settings

log = structlog.get_logger()

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
    return f"{SCHEMA}-{network_namespace()}"


def _open(settings: Settings, name: str, stays: Callable[[], bool]) -> _Shared:
    with contextlib.ExitStack() as undo:
        pins = PinDirectory.open(name)
        undo.callback(pins.close)
        left_behind = directories_with_pins()
        _retire_other_schemas(pins, left_behind, settings)
        tables = _open_tables(settings, pins)
        undo.callback(lambda: None if stays() else pins.unpin_all())
        undo.callback(tables.close)
        control = Control(tables, settings)
        undo.callback(control.close)
        undo.enter_context(_loopback_forwards(stays, unknown_before=bool(left_behind)))
        undo.callback(lambda: log.info("tables.kept", path=str(pins.path)) if stays() else None)
        return _Shared(PacketEngine(tables=tables, control=control, pins=pins, stays=stays), undo.pop_all())


def _open_tables(settings: Settings, pins: PinDirectory) -> Tables:
    try:
        return Tables.open(settings, pins)
    except PinMismatch as error:
        retire(pins, f"{error.path.name}: {'; '.join(error.differences)}", settings.drain_timeout)
        return Tables.open(settings, pins)


def _retire_other_schemas(own: PinDirectory, left_behind: Iterable[Path], settings: Settings) -> None:
    for path in left_behind:
        if path != own.path:
            with PinDirectory.open(path.name) as other:
                reason = f"need tables of schema {SCHEMA}, have those of schema {path.name.partition('-')[0]}"
                retire(other, reason, settings.drain_timeout)


@contextlib.contextmanager
def _loopback_forwards(stays: Callable[[], bool], *, unknown_before: bool) -> Iterator[None]:
    """Let the engine ask for routes as if packets came from the loopback interface (c/routes.h).

    The kernel answers nobody who asks for an interface that does not forward. This one has no packets to forward
    but those that the host sends to itself, so nothing else changes.
    """
    before = forwarding_of("all" if unknown_before else "lo")
    for version in before:
        set_loopback_forwarding(version, "1")
    try:
        yield
    finally:
        for version, value in before.items() if not stays() else ():
            set_loopback_forwarding(version, value)
