"""A watchable value: whoever holds it sees the current value, then each change.

The newest value wins: a slow reader may miss one in between, never the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")


@final
@attrs.define(eq=False)
class Table(Generic[T]):
    """One value with many readers; only its owner calls :meth:`publish`."""

    _value: T
    _version: int = attrs.field(default=0, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def current(self) -> T:
        """The value now."""
        return self._value

    def publish(self, value: T) -> None:
        """Replace the value and wake every reader."""
        self._value = value
        self._version += 1
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def changes(self) -> AsyncIterator[T]:
        """Yield the current value at once, then each later one; never ends. A checkpoint at each step."""
        seen = -1
        while True:
            if seen == self._version:
                await self._changed.wait()
            else:
                await trio.lowlevel.checkpoint()
            seen = self._version
            yield self._value
