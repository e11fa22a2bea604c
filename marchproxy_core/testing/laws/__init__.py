"""What every tier keeps: plain async functions over a tier and a wire, without pytest.

A law returns when the tier keeps it, raises AssertionError when it does not, and
:class:`~marchproxy_core.testing.subject.NotApplicable` when the tier declined what the law is about.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from marchproxy_core.testing.laws import changes, counting, doors, ending, flushing, hooks, traffic
from marchproxy_core.testing.subject import Subject
from marchproxy_core.testing.wire import Wire

Law = Callable[[Subject, Wire], Awaitable[None]]

LAWS: tuple[Law, ...] = (
    *hooks.LAWS,
    *traffic.LAWS,
    *counting.LAWS,
    *changes.LAWS,
    *flushing.LAWS,
    *doors.LAWS,
    *ending.LAWS,
)

HANG_S = 90.0


async def obey(law: Law, plugin: object, wire: Wire) -> None:
    """Hold a tier to one law.

    Args:
        law: One of ``LAWS``.
        plugin: The tier's plugin module, or any object with the five hooks.
        wire: Where its traffic runs.

    Raises:
        AssertionError: The tier broke the law, or hung.
        NotApplicable: The tier declined what the law is about, or cannot run here.
    """
    try:
        with trio.move_on_after(HANG_S) as patience:
            await law(await Subject.of(plugin, wire.settings), wire)
    except ExceptionGroup as group:
        raise _telling(group) from group
    if patience.cancelled_caught:
        raise AssertionError(f"hung: {law.__name__} took longer than {HANG_S:g} s")


def _telling(error: Exception) -> Exception:
    """Find the one exception of a group that says most: a broken law before what followed from it."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [_telling(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, AssertionError)), leaves[0])
