"""The daemon: engine, health checks, admin API and signals in one process, as ``marchproxy run`` starts it.

SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs
import structlog
import trio

from marchproxy_core import logs
from marchproxy_core.admin.server import serve_admin
from marchproxy_core.admin.view import ReloadResult
from marchproxy_core.backends.health_board import HealthBoard
from marchproxy_core.backends.health_checks import run_health_checks
from marchproxy_core.config import Config, diff, load
from marchproxy_core.engine.engine import Engine
from marchproxy_core.engine.process import prepare_process
from marchproxy_core.errors import MarchProxyError
from marchproxy_core.host import HostFacts, gather_again, gather_host_facts
from marchproxy_core.listeners import Buffers, ListenerSet
from marchproxy_core.packet.left_behind import discard_left_behind
from marchproxy_core.plugins import PluginRow, Tiers, discover
from marchproxy_core.services import Service
from marchproxy_core.table import Table

if TYPE_CHECKING:
    from marchproxy_core.door import DoorChange, KnownRule
    from marchproxy_core.model import BackendObservation, Plan, TierStats
    from marchproxy_core.questions import Purge, Purged, Recall, Recalled

log = structlog.get_logger()


@final
@attrs.define(eq=False, kw_only=True)
class Daemon:
    """What the admin API and the signals act on; implements ``EngineView``."""

    engine: Engine
    board: HealthBoard
    load: Callable[[], Config]
    services: Table[tuple[Service, ...]]
    started_at: datetime = attrs.field(factory=lambda: datetime.now(UTC))

    @property
    def plan(self) -> Plan:
        """Who carries what, now."""
        return self.engine.plan

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self.engine.config

    @property
    def plugins(self) -> tuple[PluginRow, ...]:
        """Every installed tier, the broken ones too."""
        return self.engine.tiers.rows

    @property
    def ready(self) -> bool:
        """Whether services are carried; false while starting and from the start of a drain on."""
        return self.engine.ready

    def stats(self) -> Mapping[str, TierStats]:
        """Counters by tier since the daemon started."""
        return self.engine.stats()

    async def refresh(self) -> None:
        """Read every tier's counters anew."""
        await self.engine.refresh_stats()

    def fallbacks(self) -> Mapping[tuple[str, str, str], int]:
        """How often a service moved, by tier left, tier taken and reason."""
        return self.engine.moves

    async def reload(self) -> ReloadResult:
        """Read the configuration again and apply the difference.

        Raises:
            MarchProxyError: What is wrong with it; nothing was changed.
        """
        new = await trio.to_thread.run_sync(self.load)
        old = self.engine.config
        change = diff(old, new)
        await self.engine.apply(new)
        log.info("config.reloaded", added=change.added, removed=change.removed, changed=change.changed)
        return ReloadResult(
            added=change.added,
            removed=change.removed,
            changed=change.changed,
            unchanged=change.unchanged,
            settings=tuple(name for name in change.settings if name not in change.needs_restart),
            needs_restart=change.needs_restart,
            notes=new.notes,
        )

    def adopt(self, config: Config) -> None:
        """Have the log and the health checks follow a new configuration."""
        logs.set_level(config.settings.log_level, debug=config.settings.proxy_debug)
        self.board.configure(config.services, now=trio.current_time())
        self.services.publish(config.services)

    def door(self) -> tuple[KnownRule, ...]:
        """Return the rules at the front door."""
        return self.engine.door.known

    def change_door(self, change: DoorChange) -> None:
        """Add or remove a rule at the front door.

        Raises:
            DoorError: It cannot be; nothing was changed.
        """
        self.engine.change_door(change)

    async def recall(self, question: Recall) -> Recalled | None:
        """Ask the tiers what became of a request."""
        return await self.engine.recall(question)

    async def purge(self, question: Purge) -> Purged:
        """Have the tiers forget what is cached."""
        return await self.engine.purge(question)

    def drain(self) -> None:
        """Take nothing new and end when connections have ended, or after ``DRAIN_TIMEOUT``."""
        self.engine.drain()


def run_daemon(path: Path | None, environ: Mapping[str, str], *, keep_attached: bool = False) -> None:
    """Run the daemon until it is drained; blocks. Logging is the caller's to configure.

    Args:
        path: Of the configuration.
        environ: Of the process.
        keep_attached: Leave what forwards in the kernel there at the end.

    Raises:
        MarchProxyError: It cannot start, and why; its ``exit_status`` is the process's.
    """
    tiers = discover()

    def load_again() -> Config:
        return load(path, environ, tiers.names)

    config = load_again()
    host = gather_host_facts()
    prepare_process(config)
    try:
        trio.run(partial(serve, keep_attached=keep_attached), config, tiers, load_again, host)
    except BaseExceptionGroup as group:
        raise _told(group) from group


async def serve(
    config: Config,
    tiers: Tiers,
    load_again: Callable[[], Config],
    host: HostFacts,
    *,
    keep_attached: bool = False,
    task_status: trio.TaskStatus[Daemon] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run everything until drained; ``started()`` has the daemon, once each service is carried."""
    board = HealthBoard(config.services, now=trio.current_time())
    settings = config.settings
    trio.to_thread.current_default_thread_limiter().total_tokens = settings.io_threads
    for note in config.notes:
        log.info("config.noted", note=note)
    engine = Engine(
        config=config,
        tiers=tiers,
        host=host,
        keep_attached=keep_attached,
        look_again=gather_again,
        listeners=ListenerSet(
            settings.worker_threads or len(host.cpus),
            Buffers(receive=settings.recv_buffer_size, send=settings.send_buffer_size),
        ),
        backends=lambda service: board.views(service.name),
        observe=lambda observation: _observe(board, observation),
    )
    daemon = Daemon(engine=engine, board=board, load=load_again, services=Table(config.services))
    engine.adopted = daemon.adopt
    async with trio.open_nursery() as around:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            around.start_soon(_obey, daemon, signals, around.cancel_scope)
            await around.start(serve_admin, daemon, settings)
            await around.start(
                run_health_checks, daemon.services, board, lambda service: engine.refresh_backends()
            )
            async with trio.open_nursery() as inner:
                await inner.start(engine.run)
                if not engine.carries_packets:
                    await trio.to_thread.run_sync(discard_left_behind)
                log.info("daemon.started", services=len(config.services), tiers=tiers.names)
                task_status.started(daemon)
            log.info("daemon.stopped")
        around.cancel_scope.cancel()


async def _obey(daemon: Daemon, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
    draining = False
    async for number in signals:
        if number == signal.SIGHUP:
            try:
                await daemon.reload()
            except MarchProxyError as error:
                log.error("config.refused", error=str(error))  # noqa: TRY400 - the operator's error, no traceback
        elif draining:
            everything.cancel()
        else:
            draining = True
            daemon.drain()


def _observe(board: HealthBoard, observation: BackendObservation) -> None:
    board.observe(observation, trio.current_time())


def _told(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Find the one error that an operator is to read."""
    for error in group.exceptions:
        found = _told(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, MarchProxyError):
            return found
    return group
