"""What was counted, and when it says something. Pure values; the JSON holds them as they are."""

from __future__ import annotations

import attrs

from bench.packets.traffic import Point

MOST_VANISHED = 0.01
"""A frame that is lost behind the ring cost the core something, and is not counted."""


@attrs.frozen(kw_only=True)
class Moment:
    """Counters at one time; nanoseconds unless the name says otherwise."""

    at_s: float
    offered: int
    received: int
    core_ns: int
    """What the core has spent on packets: the thread that receives them, and ksoftirqd."""
    program_ns: int = 0
    program_runs: int = 0


@attrs.frozen(kw_only=True)
class Totals:
    """Packets since the turn began, counted while none is sent."""

    offered: int
    found_full: int
    """Those that the ring before the carrier had no room for."""
    received: int

    def vanished_since(self, before: Totals) -> float:
        """Return which share of those that the ring took since then was not received."""
        taken = (self.offered - before.offered) - (self.found_full - before.found_full)
        return max(1 - (self.received - before.received) / taken, 0.0) if taken > 0 else 0.0


@attrs.frozen(kw_only=True)
class Sample:
    """What was counted between two moments, packets and seconds.

    Args:
        seconds: Time between them.
        offered: Packets that the generator sent.
        received: Packets that came through, or were dropped where that is what is measured.
        core_s: Time that the core spent on packets.
        vanished: Share of the frames that the carrier's ring took and that were not received, from the generator's
            start to its end. Those that found the ring full cost the core nothing: the generator takes them back.
        program_ns: Mean time of one run of the program; None where there is none, or nobody measured it.
    """

    seconds: float
    offered: int
    received: int
    core_s: float
    vanished: float = 0.0
    program_ns: float | None = None

    @classmethod
    def between(cls, first: Moment, last: Moment, *, vanished: float = 0.0) -> Sample:
        """Return the difference."""
        runs = last.program_runs - first.program_runs
        return cls(
            seconds=last.at_s - first.at_s,
            offered=last.offered - first.offered,
            received=last.received - first.received,
            core_s=(last.core_ns - first.core_ns) / 1e9,
            vanished=vanished,
            program_ns=(last.program_ns - first.program_ns) / runs if runs else None,
        )

    @property
    def packets_s(self) -> float:
        """Packets by second of the core's own time: what one core does that others leave alone."""
        return self.received / self.core_s if self.core_s else 0.0

    @property
    def loss(self) -> float:
        """Which share of what was offered did not come through; the two are not counted at the very same moment."""
        return max(1 - self.received / self.offered, 0.0) if self.offered else 0.0

    @property
    def refusal(self) -> str | None:
        """Why the sample says nothing about what was measured; None: it does."""
        if not self.received or not self.seconds:
            return "nothing came through"
        if self.vanished > MOST_VANISHED:
            return f"{self.vanished:.0%} of the frames were lost behind the ring"
        return None


@attrs.frozen(kw_only=True)
class Reading:
    """One turn of one carrier at one point: what it gave, or why it failed.

    Args:
        round: From 1 on; 0: the turn in which the kernel timed programs, which costs some 20 ns a packet.
        carrier: Whose.
        point: What was under way.
        sample: What was counted.
        failure: Why there is none.
    """

    round: int
    carrier: str
    point: Point
    sample: Sample | None = None
    failure: str | None = None

    @property
    def is_profile(self) -> bool:
        """Whether the kernel timed programs meanwhile."""
        return self.round == 0
