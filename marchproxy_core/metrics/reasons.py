"""Reasons as labels: short names, and not too many."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REASON = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MAX_REASONS = 128
OTHER = "other"
"""Stands for reasons that are not short names, or one too many."""


def bounded_reasons(drops: Mapping[str, int]) -> dict[str, int]:
    """Return drops by reason: at most 128 reasons that are short names, and the rest summed as ``other``."""
    result: dict[str, int] = {}
    for reason, count in sorted(drops.items()):
        label = short(reason)
        if label not in result and len(result) >= _MAX_REASONS:
            label = OTHER
        result[label] = result.get(label, 0) + count
    return result


def short(reason: str) -> str:
    """Return the reason if it is a short name, else ``other``."""
    return reason if _REASON.fullmatch(reason) else OTHER
