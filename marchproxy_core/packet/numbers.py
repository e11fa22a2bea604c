"""Places in the engine's arrays, by what they stand for: the same for as long as it is there, and after a restart."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar, final

Name = TypeVar("Name", bound=Hashable)


class NoPlace(Exception):
    """All places are taken; the message names the setting that makes more."""


@final
class Numbers(Generic[Name]):
    """Gives each name a place of its own."""

    def __init__(self, first: int, end: int, setting: str) -> None:
        """Give places from ``first`` up to, but without, ``end``; ``setting`` is what an error names."""
        self._end = end
        self._first = first
        self._setting = setting
        self._places: dict[Name, int] = {}
        self._names: dict[int, Name] = {}
        self._next = first

    def adopt(self, name: Name, place: int) -> None:
        """Take note of what the tables have from before; the first to come keeps a name and a place."""
        if name not in self._places and place not in self._names and self._first <= place < self._end:
            self._places[name] = place
            self._names[place] = name

    def of(self, name: Name) -> int:
        """Return the place of a name, a new one if it has none yet.

        New ones go round, so that a place is not used again while a program may still read what it was.

        Raises:
            NoPlace: There is none left.
        """
        if name in self._places:
            return self._places[name]
        if len(self._places) >= self._end - self._first:
            raise NoPlace(f"all {self._end - self._first} places are taken - fix: raise {self._setting}")
        while self._next in self._names:
            self._next = self._after(self._next)
        place = self._next
        self.adopt(name, place)
        self._next = self._after(place)
        return place

    def _after(self, place: int) -> int:
        return place + 1 if place + 1 < self._end else self._first

    def known(self, name: Name) -> int | None:
        """Return the place of a name, None when it has none."""
        return self._places.get(name)

    def name(self, place: int) -> Name | None:
        """Return what a place stands for."""
        return self._names.get(place)

    def keep(self, names: Iterable[Name]) -> None:
        """Free the places of all others."""
        for place in self.others(names):
            del self._places[self._names.pop(place)]

    def others(self, names: Iterable[Name]) -> list[int]:
        """Return the places of all but these."""
        kept = set(names)
        return [place for name, place in self._places.items() if name not in kept]
