"""How long to wait before a failed tier is tried again, and before it is trusted again. Pure."""

from __future__ import annotations

from typing import final

import attrs

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
FORGIVEN_AFTER_S = 600.0


@final
@attrs.define(kw_only=True)
class Pauses:
    """Growing pauses of one tier: 1 s, 2 s, 4 s … 300 s; a long good run forgives everything."""

    failures: int = 0

    def failed(self, good_for_s: float) -> float:
        """Note a failure after a good run of that many seconds; return the pause before the next try, in seconds."""
        if good_for_s >= FORGIVEN_AFTER_S:
            self.failures = 0
        self.failures += 1
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self.failures - 1))

    @property
    def probation_s(self) -> float:
        """Seconds that the tier must run well before it gets its services back; 0 when it never failed.

        As long as the last pause, so a flapping tier moves traffic ever more rarely.
        """
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (self.failures - 1)) if self.failures else 0.0
