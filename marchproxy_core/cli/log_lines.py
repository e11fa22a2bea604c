"""Log lines as values: cutting a stream into lines, reading one, and judging it by a filter. Pure."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import final

import attrs

from marchproxy_core.logs import LEVELS

MAX_LINE_BYTES = 1 << 20
SHOWN_BYTES = 500
"""How much of a line longer than the bound is kept."""
_RELATIVE = re.compile(r"(\d{1,9})\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@attrs.frozen
class Line:
    """One line as it was read, without its end."""

    text: str
    cut_bytes: int = 0
    """How many bytes were left out, for a line longer than 1 MiB."""


@final
class LineSplitter:
    """Cuts blocks of bytes into lines; holds at most 1 MiB of a line, and counts the rest."""

    def __init__(self) -> None:
        self._part = b""
        self._cut = 0

    def feed(self, block: bytes) -> list[Line]:
        """Take a block; return the lines that it ends."""
        *ended, rest = block.split(b"\n")
        lines = []
        for piece in ended:
            self._keep(piece)
            lines.append(self._take())
        self._keep(rest)
        return lines

    def flush(self) -> list[Line]:
        """Return the last line when it has no end."""
        return [self._take()] if self._part else []

    def _keep(self, piece: bytes) -> None:
        if self._cut:
            self._cut += len(piece)
            return
        self._part += piece
        if len(self._part) > MAX_LINE_BYTES:
            self._cut = len(self._part) - SHOWN_BYTES
            self._part = self._part[:SHOWN_BYTES]

    def _take(self) -> Line:
        line = Line(self._part.removesuffix(b"\r").decode("utf-8", "replace"), self._cut)
        self._part, self._cut = b"", 0
        return line


@attrs.frozen(kw_only=True)
class Entry:
    """A log line that is one of ours."""

    timestamp: datetime | None
    level: str
    event: str
    keys: Mapping[str, object]
    """Everything else, in the line's order."""


def parse(line: Line) -> Entry | None:
    """Read a line; None when it is not a JSON object with an event."""
    if line.cut_bytes:
        return None
    try:
        data = json.loads(line.text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("event"), str):
        return None
    return Entry(
        timestamp=_timestamp(data.get("timestamp")),
        level=str(data.get("level", "")),
        event=data["event"],
        keys={key: value for key, value in data.items() if key not in ("timestamp", "level", "event")},
    )


def _timestamp(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a time: ISO 8601 (UTC unless it has an offset), or how long ago, as ``90s``, ``10m``, ``2h``, ``1d``.

    Raises:
        ValueError: It is neither.
    """
    relative = _RELATIVE.fullmatch(text.strip())
    try:
        if relative:
            return now - timedelta(seconds=int(relative[1]) * _SECONDS[relative[2]])
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ValueError(
            "want a time as 2026-01-31T12:00:00, or how long ago as 90s, 10m, 2h or 1d"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@attrs.frozen(kw_only=True)
class LogFilter:
    """Which lines to show; what is None lets everything pass."""

    level: str | None = None
    """This level and the more urgent ones."""
    event: str | None = None
    """A pattern with ``*``, ``?`` and ``[…]``, as ``tier.*``."""
    tier: str | None = None
    service: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def passes_foreign(self) -> bool:
        """Whether lines that are not ours pass: unless something is asked for that they cannot have."""
        return self.event is None and self.tier is None and self.service is None

    def passes(self, entry: Entry) -> bool:
        """Judge an entry. One whose level or time cannot be read passes no filter on it."""
        return (
            self._level_passes(entry.level)
            and (self.event is None or fnmatch.fnmatchcase(entry.event, self.event))
            and (self.tier is None or entry.keys.get("tier") == self.tier)
            and (self.service is None or entry.keys.get("service") == self.service)
            and (self.since is None or (entry.timestamp is not None and entry.timestamp >= self.since))
            and (self.until is None or (entry.timestamp is not None and entry.timestamp <= self.until))
        )

    def _level_passes(self, level: str) -> bool:
        if self.level is None:
            return True
        return level in LEVELS and LEVELS.index(level) >= LEVELS.index(self.level)
