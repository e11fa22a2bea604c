"""A watchable value: whoever holds it sees the current value, then each change.

The newest value wins: a slow reader may miss one in between, never the last. A reader that asks for the next value
says by it that it has done with the one before, and the owner can wait for that.
"""

from __future__ import annotations

from typing import Generic, TypeVar, final

import attrs
import trio

T = TypeVar("T")


@final
@attrs.define(eq=False)
class Table(Generic[T]):
    """One value with many readers; only its owner calls :meth:`publish`."""

    _value: T
    _version: int = attrs.field(default=0, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _done_with: int = attrs.field(default=-1, init=False)
    _read: trio.Event = attrs.field(factory=trio.Event, init=False)

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

    async def taken(self) -> None:
        """Wait until a reader has done with the newest value, also when it is replaced meanwhile."""
        while self._done_with < self._version:
            await self._read.wait()

    def changes(self) -> Changes[T]:
        """Iterate over the current value at once, then each later one; never ends. A checkpoint at each step."""
        return Changes(self)

    async def _newer_than(self, seen: int) -> tuple[int, T]:
        if seen > self._done_with:
            self._done_with = seen
            read, self._read = self._read, trio.Event()
            read.set()
        if seen == self._version:
            await self._changed.wait()
        else:
            await trio.lowlevel.checkpoint()
        return self._version, self._value


@final
class Changes(Generic[T]):
    """A reader's place in a table. A plain object, not a generator: it may be left at any point without clean-up."""

    def __init__(self, table: Table[T]) -> None:
        """Use :meth:`Table.changes`."""
        self._table = table
        self._seen = -1

    def __aiter__(self) -> Changes[T]:
        return self

    async def __anext__(self) -> T:
        self._seen, value = await self._table._newer_than(self._seen)
        return value
