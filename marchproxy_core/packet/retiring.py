"""Tables of an earlier daemon that this one cannot go on with: another schema, or other sizes. Blocks.

Flows in them must not be cut, and a second set of tables beside them would give their ports out again. So they
*retire* first: their services are taken out, which makes the old programs leave new connections to the tiers below,
and the flows go on by the old programs for as long as a drain lasts. Only then they are removed.
"""

from __future__ import annotations

import contextlib
import errno
import time
from pathlib import Path

import structlog

from marchproxy_core.bpf import BpfError, Map, PinDirectory, delete_many, items
from marchproxy_core.errors import TierUnavailable

log = structlog.get_logger()

_SERVICES = "services"
_KEYS = "keys"
_deadlines: dict[Path, float] = {}
"""When the flows of a directory have had their time, by the monotonic clock; kept from one try to the next."""


def retire(pins: PinDirectory, reason: str, timeout_s: float) -> None:
    """Remove what is pinned, if its flows are gone or have had their time.

    Args:
        pins: Open, so no other daemon has it.
        reason: Why it cannot be used, for the log.
        timeout_s: How long its flows may go on, from the first call on.

    Raises:
        TierUnavailable: There are flows that still have time.
    """
    path, now = pins.path, time.monotonic()
    if path not in _deadlines:
        _empty(pins, _SERVICES)
        _deadlines[path] = now + timeout_s if _has_entries(pins, _KEYS) else now
        if _deadlines[path] > now:
            log.warning("tables.retired", path=str(path), reason=reason, timeout_s=timeout_s)
    left_s = _deadlines[path] - now
    if left_s > 0:
        raise TierUnavailable(
            f"no flows in {path}, which cannot be used: {reason}",
            f"some, that may go on for {left_s:.0f} s more",
            "wait; lower tiers carry what is new meanwhile",
        )
    pins.unpin_all()
    del _deadlines[path]
    log.warning("tables.discarded", path=str(path), reason=reason)


def _empty(pins: PinDirectory, name: str) -> None:
    with _opened(pins, name) as table:
        if table is not None:
            delete_many(table, [key for key, _ in items(table)])


def _has_entries(pins: PinDirectory, name: str) -> bool:
    with _opened(pins, name) as table:
        return table is not None and next(items(table), None) is not None


def _opened(pins: PinDirectory, name: str) -> contextlib.AbstractContextManager[Map | None]:
    try:
        return Map.open_pinned(pins.file(name))
    except BpfError as error:
        if error.errno != errno.ENOENT:
            raise
        return contextlib.nullcontext()
