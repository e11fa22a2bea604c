"""How long a law waits for what must come: generous, it only ends a hang."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from marchproxy_core.testing import waiting

PATIENCE_S = 10.0


@contextmanager
def in_time(what: str, *, times: float = 1.0) -> Iterator[None]:
    """Run a block that must end in time.

    Args:
        what: What the block does, for the message.
        times: How many times the usual patience it gets.

    Raises:
        AssertionError: It did not end.
    """
    with trio.move_on_after(PATIENCE_S * times) as scope:
        yield
    if scope.cancelled_caught:
        raise AssertionError(f"gave up after {PATIENCE_S * times:g} s: {what}")


async def until(condition: Callable[[], Awaitable[bool]], what: str, *, times: float = 1.0) -> None:
    """Wait for what must come.

    Args:
        condition: Asked again and again.
        what: What it stands for, for the message.
        times: How many times the usual patience it gets.

    Raises:
        AssertionError: It did not come.
    """
    deadline_s = PATIENCE_S * times
    try:
        await waiting.until(condition, deadline_s=deadline_s)
    except TimeoutError:
        raise AssertionError(f"waited {deadline_s:g} s in vain: {what}") from None
