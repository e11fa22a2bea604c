"""A bounded memory of what was verified: two generations, so that what is used stays and nothing is sorted."""

from __future__ import annotations

from typing import Generic, TypeVar, final

T = TypeVar("T")

_PER_BYTE = 6
"""Bytes of memory for each byte of a token, with its claims as Python has them: 5.5 were measured (CPython 3.11)."""
_PER_ENTRY = 512


@final
class Remembered(Generic[T]):
    """Maps bytes to values; forgets what was not asked for the longest, roughly."""

    __slots__ = ("_most_bytes", "_old", "_young", "_young_bytes")

    def __init__(self, most_bytes: int) -> None:
        """Make it empty.

        Args:
            most_bytes: About how much memory all of it may take; 0 remembers nothing.
        """
        self._most_bytes = most_bytes
        self._young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}
        self._young_bytes = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> T | None:
        """Return what is remembered."""
        value = self._young.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self.put(key, value)
        return value

    def put(self, key: bytes, value: T) -> None:
        """Remember a value; it replaces an older one."""
        cost = _PER_BYTE * len(key) + _PER_ENTRY
        half = self._most_bytes // 2
        if cost > half:
            return
        if self._young_bytes + cost > half:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._old.pop(key, None)
        if key not in self._young:
            self._young_bytes += cost
        self._young[key] = value

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old, self._young_bytes = {}, {}, 0
