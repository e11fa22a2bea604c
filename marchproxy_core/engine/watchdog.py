"""Frees the trio thread from a tier that blocks it: a loop that never awaits, or a blocking call.

All tiers share one thread with the engine, so one that hangs there hangs everything, and no timeout fires. A
thread of its own watches the engine's heartbeat; when it stops, a signal makes the blocked code itself raise a
:class:`TierFault`, provided that it is a tier's code. What blocks in C without returning to Python for signals
cannot be freed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import final

import attrs
import structlog
import trio

from marchproxy_core.errors import TierFault

log = structlog.get_logger()

running_tier: ContextVar[str] = ContextVar("running_tier")
"""The tier whose code runs, inherited by every task that it starts."""

BEAT_S = 0.25
PATIENCE_S = 2.0
_SIGNAL = signal.SIGUSR2


@final
@attrs.define(eq=False)
class Watchdog:
    """Watches one trio run in the main thread."""

    patience_s: float = PATIENCE_S
    _last_beat_s: float = attrs.field(factory=time.monotonic)
    _stop: threading.Event = attrs.field(factory=threading.Event)

    async def beat(self) -> None:
        """Be the heartbeat; run it as a task of the engine until cancelled."""
        while True:
            self._last_beat_s = time.monotonic()
            await trio.sleep(BEAT_S)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs; in the main thread only, elsewhere signals cannot be used."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(_SIGNAL, _free)
        self._last_beat_s = time.monotonic()
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            signal.signal(_SIGNAL, before)

    def _watch(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        suspected = False
        while not self._stop.wait(self.patience_s / 2):
            late = time.monotonic() - self._last_beat_s > self.patience_s
            # Two looks: after the whole process was stopped, both threads wake late but only one look finds it.
            if late and suspected:
                signal.pthread_kill(main, _SIGNAL)
            suspected = late


def _free(number: int, frame: FrameType | None) -> None:
    """Run in the main thread, inside of whatever blocks it."""
    del number
    try:
        trio.lowlevel.current_task()
        tier = running_tier.get()
    except (RuntimeError, LookupError):
        return  # trio's own code, or the engine's: nobody to blame
    where = (
        f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        if frame
        else "unknown code"
    )
    raise TierFault(
        tier, "hung", f"blocked the event loop in {where}", "await, or use a thread for blocking calls"
    )
