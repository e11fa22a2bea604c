"""What became of the last requests, as the lines of the access log: for who asks by a request's id. Pure."""

from __future__ import annotations

import json
from typing import Final, final

MOST: Final = 4096
MOST_BYTES: Final = 4 << 20
_LONG_BYTES: Final = 16384
_LONGEST_TEXT: Final = 1024
_LONGEST_ERROR: Final = 128


@final
class Remembered:
    """The last lines by their requests' ids: at least 4,096 of them, or 4 MiB, and at most twice as many.

    Of two generations the older one is forgotten as a whole once the younger one is full: to keep a line then costs no
    more than to put it into a dictionary.
    """

    __slots__ = ("_bytes", "_older", "_younger")

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._younger: dict[bytes, bytes] = {}
        self._older: dict[bytes, bytes] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._younger) + len(self._older)

    def keep(self, request_id: bytes, line: bytes) -> None:
        """Remember a request by its line, a JSON object."""
        younger = self._younger
        younger[request_id] = line
        self._bytes = size = self._bytes + len(line)
        if size >= MOST_BYTES or len(younger) >= MOST:
            self._older, self._younger, self._bytes = younger, {}, 0

    def find(self, request_id: bytes) -> dict[str, object] | None:
        """Return what is known of a request; None: nothing any more. What is very long is cut, to 32 KiB as JSON."""
        line = self._younger.get(request_id) or self._older.get(request_id)
        if line is None:
            return None
        told: dict[str, object] = json.loads(line)
        return told if len(line) <= _LONG_BYTES else _cut(told)


def _cut(told: dict[str, object]) -> dict[str, object]:
    attempts = told.get("attempts")
    cut = {key: value[:_LONGEST_TEXT] if isinstance(value, str) else value for key, value in told.items()}
    if isinstance(attempts, list):
        cut["attempts"] = [{**one, "error": one["error"][:_LONGEST_ERROR]} for one in attempts[:11]]
    return cut
