"""The settings of the engine, as it has them: ports, times in ticks, limits, and rates as nanoseconds between two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marchproxy_core.packet.flows import ticks_for
from marchproxy_core.packet.network import default_port_range

if TYPE_CHECKING:
    from marchproxy_core.config import Settings

SECOND_NS = 1_000_000_000
BURST_NS = SECOND_NS
"""By how much new flows may be early: a second's worth and one at once, as limits.default_burst has it."""
_OPENING_S = 16.0
"""How long a TCP flow is kept that no backend answers: SYNs at 0, 1, 3 and 7 s (tcp(7)), and time for the answer."""
_CLOSING_S = 10.0


def in_engine(settings: Settings) -> dict[str, int]:
    """Return the fields of the engine's own settings that come from the daemon's."""
    first, last = settings.nat_port_range or default_port_range()
    counts = [one for one in (settings.max_connections, settings.global_max_connections) if one is not None]
    established = ticks_for(settings.idle_timeout)
    return {
        "first_port": first,
        "last_port": last,
        "established_ticks": established,
        "opening_ticks": min(ticks_for(_OPENING_S), established),
        "closing_ticks": min(ticks_for(_CLOSING_S), established),
        "max_active": min(counts, default=0),
        "interval": interval_ns(settings.global_connection_rate),
        "burst": BURST_NS,
    }


def interval_ns(rate: float | None) -> int:
    """Return the time between two of so many a second; 0 for any number."""
    return int(SECOND_NS / rate) if rate else 0
