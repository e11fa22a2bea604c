"""The rows, by subject."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from marchproxy_core.testing.packets.table import (
    answers,
    doors,
    extensions,
    forwarding,
    icmp,
    joined,
    limits,
    partial,
    passing,
    ports,
    routes,
    states,
)

if TYPE_CHECKING:
    from marchproxy_core.testing.packets.row import Row

SUBJECTS = (
    forwarding,
    passing,
    extensions,
    ports,
    limits,
    doors,
    states,
    routes,
    icmp,
    answers,
    partial,
    joined,
)


@functools.cache
def rows() -> tuple[Row, ...]:
    """Return the whole table; made by scapy at the first call."""
    return tuple(row for subject in SUBJECTS for row in subject.rows())
