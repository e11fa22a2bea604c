"""Waiting for a condition with a deadline, for what has no event to wait on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05


async def until(
    condition: Callable[[], bool | Awaitable[bool]], *, deadline_s: float = 10.0, what: str = "the condition"
) -> None:
    """Return once ``condition`` holds; asked often at first, then every 50 ms.

    Args:
        condition: A plain or an async function.
        deadline_s: Seconds after which the wait fails; generous, it only ends a hang.
        what: What is waited for, for the message.

    Raises:
        TimeoutError: The deadline passed.
    """
    pause_s = _FIRST_PAUSE_S
    with trio.move_on_after(deadline_s):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
    raise TimeoutError(f"{what} did not come true within {deadline_s:g} s")
