"""A run that is ended takes its laboratory down: SIGTERM is as good as Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from bench.starting import TurnFailed

T = TypeVar("T")


async def until_terminated(work: Callable[[], Awaitable[list[T]]]) -> list[T]:
    """Run ``work``; SIGTERM cancels it, so that the laboratory is taken down as with Ctrl-C.

    Raises:
        TurnFailed: SIGTERM came.
    """
    readings: list[T] = []
    async with trio.open_nursery() as nursery:

        async def wait_for_the_signal(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    raise TurnFailed("ended by SIGTERM")

        await nursery.start(wait_for_the_signal)
        readings = await work()
        nursery.cancel_scope.cancel()
    return readings
