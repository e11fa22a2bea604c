"""The rows, by subject: each module has a function ``rows()``, which scapy makes take a while."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marchproxy_core.testing.packets.row import Row

SUBJECTS = (
    "forwarding",
    "passing",
    "extensions",
    "ports",
    "limits",
    "doors",
    "states",
    "routes",
    "icmp",
    "answers",
    "partial",
    "joined",
)
"""Names of the modules."""


@functools.cache
def rows_of(subject: str) -> tuple[Row, ...]:
    """Return the rows of one subject."""
    return tuple(importlib.import_module(f"{__name__}.{subject}").rows())


def rows() -> tuple[Row, ...]:
    """Return the whole table."""
    return tuple(row for subject in SUBJECTS for row in rows_of(subject))
