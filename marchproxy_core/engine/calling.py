"""Calling hooks that may block: in threads, of which each tier has a few of its own.

A hook that hangs keeps its thread for good. Were it one of the daemon's ``IO_THREADS``, a single bad tier would
end up with all of them, and reloads and every other tier would wait with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS_PER_TIER = 4
"""A probe, a pulse, an operator who looks, and one that hangs."""

_limiters: trio.lowlevel.RunVar[dict[str, trio.CapacityLimiter]] = trio.lowlevel.RunVar("limiters")


async def call_hook(tier: str, hook: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call a hook of a tier in a thread and return its answer; the caller sets the deadline.

    Cancelling abandons the thread, so call only hooks that do nothing but look. When all threads of the tier hang,
    this waits until cancelled.
    """
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = {}
        _limiters.set(limiters)
    limiter = limiters.setdefault(tier, trio.CapacityLimiter(THREADS_PER_TIER))
    return await trio.to_thread.run_sync(hook, *args, abandon_on_cancel=True, limiter=limiter)
