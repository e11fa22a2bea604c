"""How threads wake the worker's loop: by a descriptor that it watches (eventfd(2))."""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from marchproxy_core.relay.loop import Loop


@final
class Waker:
    """Has something called in the loop's next turn, from any thread."""

    def __init__(self, loop: Loop, on_wake: Callable[[], None]) -> None:
        """Watch; :meth:`close` ends it."""
        self._on_wake = on_wake
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.watch(self._descriptor, select.EPOLLIN, self._on_event)

    def wake(self) -> None:
        """Wake the loop; from any thread, and never blocks."""
        with contextlib.suppress(OSError):  # closed, or woken 2^64 times
            os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Close the descriptor; the loop, and whoever could still call :meth:`wake`, must have ended before."""
        os.close(self._descriptor)

    def _on_event(self, events: int) -> None:
        del events
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        self._on_wake()
