"""The rows, by subject."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from marchproxy_core.testing.packets.table import extensions, forwarding, passing, ports, states

if TYPE_CHECKING:
    from marchproxy_core.testing.packets.row import Row


@functools.cache
def rows() -> tuple[Row, ...]:
    """Return the whole table; made by scapy at the first call."""
    subjects = (forwarding, passing, extensions, ports, states)
    return tuple(row for subject in subjects for row in subject.rows())
