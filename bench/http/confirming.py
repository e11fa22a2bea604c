"""Whether a turn measured what its row says: requests were logged, cached answers came from the cache. Blocks."""

from __future__ import annotations

from pathlib import Path

from bench.starting import TurnFailed

_LEAST_LOGGED = 0.9
"""Those of the warming up are there too, so what is still in a buffer leaves more than this."""
_MOST_FETCHED = 0.01
_BLOCK_BYTES = 1 << 20


def confirm_logged(log: Path, requests: float) -> None:
    """Check that a peer's access log has a line for each request.

    Raises:
        TurnFailed: It has too few.
    """
    lines = count_lines(log)
    if lines < _LEAST_LOGGED * requests:
        raise TurnFailed(f"its access log has {lines:,} lines for {requests:,.0f} requests")


def confirm_cached(seen: Path, requests: float) -> None:
    """Check that the backend was hardly asked for what a cache had.

    Args:
        seen: The backend's log of requests for it.
        requests: How many the generator made.

    Raises:
        TurnFailed: It was asked for over one in a hundred.
    """
    fetched = count_lines(seen)
    if fetched > _MOST_FETCHED * requests:
        raise TurnFailed(f"not cached: the backend saw {fetched:,} of {requests:,.0f} requests")


def count_lines(file: Path) -> int:
    """Return how many lines a file has; 0 if there is none."""
    if not file.exists():
        return 0
    with file.open("rb") as opened:
        return sum(block.count(b"\n") for block in iter(lambda: opened.read(_BLOCK_BYTES), b""))
