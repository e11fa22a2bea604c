"""The worker's side: what a tier's ``main(worker)`` is given, in a process of its own.

A worker ends when its control process does: the channel then says so. Signals meant for the whole process group
(Ctrl-C, a service manager's SIGTERM) are the control process's business and ignored here.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast, final

import attrs
import structlog

from marchproxy_core import logs
from marchproxy_core.workers.channel import WorkerChannel
from marchproxy_core.workers.ledger import BEAT, Ledger

if TYPE_CHECKING:
    from marchproxy_core.config import Settings
    from marchproxy_core.services import Endpoint

log = structlog.get_logger()


@final
@attrs.define(eq=False, kw_only=True)
class Worker:
    """What a worker process has: its place among its likes, the channel to the control process, the counters."""

    tier: str
    index: int
    """0 for the first worker of the tier; its socket of each listener is the one at this place."""
    channel: WorkerChannel
    ledger: Ledger
    _is_ready: bool = attrs.field(default=False, init=False)

    def beat(self) -> None:
        """Say that this worker is alive; at least once a second, else it is taken for hung and killed."""
        self.ledger.mine[BEAT] = time.monotonic_ns()

    def applied(self, version: int) -> None:
        """Say that the work of this version is being done."""
        self.channel.report({"applied": version})

    def wants_successor(self) -> None:
        """Ask to be replaced, after ``MAX_REQUESTS_PER_WORKER``; ``Retire`` comes once another has taken over."""
        self.channel.report({"successor": True})

    def observe(self, service: str, backend: Endpoint, *, error: str = "") -> None:
        """Tell what happened with a backend; no error means that it works."""
        self.channel.report({"service": service, "backend": str(backend), "error": error})

    def answer(self, ticket: int, answer: object) -> None:
        """Answer a question.

        Args:
            ticket: Of the question.
            answer: What JSON can have; 32 KiB of it at most.
        """
        # One that the channel does not take now is lost: whoever asked is told that this worker was silent.
        self.channel.report({"ticket": ticket, "answer": answer})

    def configure(self, settings: Settings) -> None:
        """Apply the settings that are the whole process's: log level, and the garbage collector's threshold."""
        logs.configure(
            f"{self.tier}.{self.index}", level=settings.log_level.value, debug=settings.proxy_debug
        )
        if settings.gc_threshold is not None:
            gc.set_threshold(settings.gc_threshold, *gc.get_threshold()[1:])


Main = Callable[[Worker], None]


def run(entry: str, *, tier: str, index: int, region: int, channel: int, ledger: int) -> None:
    """Be a worker: call the tier's main function and return when it does.

    Args:
        entry: ``package.module:function``.
        tier: Name of the tier.
        index: Which of its workers this is.
        region: The region of the ledger to count in.
        channel: Descriptor of the channel.
        ledger: Descriptor of the ledger's memory.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _raise_descriptor_limit()
    logs.configure(f"{tier}.{index}")
    module, _, function = entry.partition(":")
    main = cast("Main", getattr(importlib.import_module(module), function))
    counters = Ledger(ledger, region)
    os.close(ledger)
    worker = Worker(
        tier=tier, index=index, channel=WorkerChannel(socket.socket(fileno=channel)), ledger=counters
    )
    worker.beat()
    worker.channel.report({"ready": os.getpid()})
    # What is here now lives as long as the process: the collector need not look at it again.
    gc.freeze()
    try:
        main(worker)
    finally:
        worker.channel.close()


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
