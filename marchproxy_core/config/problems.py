"""Collecting what is wrong, so that all of it can be said at once."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING

from marchproxy_core.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

_BARE = re.compile(r"-?[0-9][0-9.]{0,30}")


def quote(text: str) -> str:
    """Text for an error: numbers bare, all else in quotes, escaped and cut to a readable length."""
    if _BARE.fullmatch(text):
        return text
    return json.dumps(text if len(text) <= 60 else text[:57] + "...")


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that ``name`` was probably meant to be."""
    # Similarity is quadratic in length, and a name comes from a file or the environment.
    found = difflib.get_close_matches(name[:64], sorted(known), n=1, cutoff=cutoff)
    return found[0] if found else None


class Misread(ValueError):
    """Text that is no value, by one who knows more than the kind's ``want``."""

    def __init__(self, text: str, *, want: str | None = None, nearest: str | None = None) -> None:
        """Keep what to tell.

        Args:
            text: What was read.
            want: What is accepted instead, where the kind's own sentence does not say it.
            nearest: The value that was probably meant.
        """
        super().__init__(text)
        self.want = want
        self.nearest = nearest


class Problems:
    """The problems of one source, in the order found."""

    def __init__(self, source: str) -> None:
        """Collect for ``source``, the file's name as the operator gave it."""
        self.source = source
        self.found: list[ConfigProblem] = []

    def where(self, line: int | None) -> str:
        """``file:line``, or the file alone."""
        return self.source if line is None else f"{self.source}:{line}"

    def add(self, line: int | None, what: str, got: str, want: str, near: str | None = None) -> None:
        """Note one more."""
        self.found.append(ConfigProblem(self.where(line), what, got, want, near))

    def fatal(self, line: int | None, what: str, got: str, want: str) -> ConfigError:
        """Note one after which nothing more can be read; the error to raise, with all before it."""
        self.add(line, what, got, want)
        return ConfigError(tuple(self.found))
