"""What became of the last requests, as the lines of the access log: for who asks by a request's id. Pure."""

from __future__ import annotations

import json
from collections import deque
from typing import Final, final

MOST: Final = 4096
MOST_BYTES: Final = 4 << 20
_LONG_BYTES: Final = 16384
_LONGEST_TEXT: Final = 1024
_LONGEST_ERROR: Final = 128


@final
class Remembered:
    """The last lines."""

    __slots__ = ("_bytes", "_lines")

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._lines: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._lines)

    def keep(self, line: bytes) -> None:
        """Remember a line, a JSON object with its id near the beginning; older ones make room."""
        lines = self._lines
        lines.append(line)
        self._bytes += len(line)
        while len(lines) > MOST or self._bytes > MOST_BYTES:
            self._bytes -= len(lines.popleft())

    def find(self, request_id: str) -> dict[str, object] | None:
        """Return what is known of a request; None: nothing any more. What is very long is cut, to 32 KiB as JSON."""
        # Quotation marks within values are escaped, so nothing that a client sends looks like this.
        wanted = f'"id": {json.dumps(request_id)}'.encode()
        line = next((line for line in reversed(self._lines) if wanted in line), None)
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
