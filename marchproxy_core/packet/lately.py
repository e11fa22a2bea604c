"""Tells the log now and then which packets were dropped, with a few examples. Blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, final

import attrs
import structlog

from marchproxy_core.packet import layout
from marchproxy_core.packet.reasons import Hook, Reason
from marchproxy_core.services import IPAddress

if TYPE_CHECKING:
    from marchproxy_core.packet.tables import Tables

log = structlog.get_logger()

EVERY_S = 10.0
"""How long a reason that was told is not told again."""
_EXAMPLES = 3
_PROTOCOLS = {6: "tcp", 17: "udp"}


@attrs.frozen(kw_only=True)
class Sample:
    """One packet that was dropped: ``struct mp_sample``. Addresses and ports that could not be read are zero."""

    source: IPAddress
    destination: IPAddress
    source_port: int
    destination_port: int
    protocol: int
    hook: Hook
    reason: Reason
    service: int

    @classmethod
    def unpack(cls, raw: bytes) -> Sample:
        """Read one as the engine tells it."""

        def number(field: str, size: int, order: str = "little") -> int:
            at = layout.SAMPLE.offset(field)
            return int.from_bytes(raw[at : at + size], "big" if order == "big" else "little")

        def address(field: str) -> IPAddress:
            at = layout.SAMPLE.offset(field)
            return layout.address_of(raw[at : at + layout.ADDRESS.size])

        return cls(
            source=address("source"),
            destination=address("destination"),
            source_port=number("source_port", 2, "big"),
            destination_port=number("destination_port", 2, "big"),
            protocol=number("protocol", 1),
            hook=Hook(number("hook", 1)),
            reason=Reason(number("reason", 2)),
            service=number("service", 4),
        )

    def told(self, service: str) -> dict[str, str | int]:
        """Return it as the log shows it."""
        return {
            "reason": self.reason.name.lower(),
            "hook": self.hook.name.lower(),
            "protocol": _PROTOCOLS.get(self.protocol, str(self.protocol)),
            "source": str(self.source),
            "source_port": self.source_port,
            "destination": str(self.destination),
            "destination_port": self.destination_port,
            "service": service,
        }


@final
class DropLog:
    """Drains SAMPLES. A flood costs a line in ten seconds, and one more when it is dropped for another reason."""

    def __init__(self, tables: Tables, name: Callable[[int], str | None]) -> None:
        """Tell nothing yet.

        Args:
            tables: Open for as long as this is used.
            name: Returns the service of a number.
        """
        self._tables = tables
        self._name = name
        self._told_s: dict[Reason, float] = {}
        self._examples: list[Sample] = []
        self._before: Mapping[str, int] = {}

    def look(self, dropped: Callable[[], Mapping[str, int]], now_s: float) -> None:
        """Log what was dropped, if something was and it is time.

        Args:
            dropped: Returns all that were dropped so far, by reason; called only where it is told.
            now_s: The monotonic time.
        """
        while (raw := self._tables.samples.pop()) is not None:
            self._keep(Sample.unpack(raw))
        if all(now_s - self._told_s.get(one.reason, -EVERY_S) < EVERY_S for one in self._examples):
            return
        total = dropped()
        since = {reason: count - self._known(reason, count) for reason, count in total.items()}
        counts = {reason: count for reason, count in since.items() if count}
        examples = [one.told(self._name(one.service) or "") for one in self._examples]
        log.info("packets.dropped_lately", dropped=counts, examples=examples)
        self._told_s |= dict.fromkeys((one.reason for one in self._examples), now_s)
        self._before, self._examples = total, []

    def _known(self, reason: str, count: int) -> int:
        """Return how many were told before; none where counting began anew."""
        before = self._before.get(reason, 0)
        return before if before <= count else 0

    def _keep(self, sample: Sample) -> None:
        """Keep the first ones of different sources, but one of each reason."""
        if any((one.reason, one.source) == (sample.reason, sample.source) for one in self._examples):
            return
        if len(self._examples) >= _EXAMPLES:
            if any(one.reason is sample.reason for one in self._examples):
                return
            self._examples.pop()
        self._examples.append(sample)
