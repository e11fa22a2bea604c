"""What was counted, and when it says something. Pure values; the JSON holds them as they are."""

from __future__ import annotations

import attrs

from bench.packets.traffic import Point

SATURATED = 0.9
HEADROOM = 1.2


@attrs.frozen(kw_only=True)
class Moment:
    """Counters at one time; nanoseconds unless the name says otherwise."""

    at_s: float
    offered: int
    received: int
    core_ns: int
    """What the core has spent on packets: the thread that receives them, and ksoftirqd."""
    demand_ns: int
    """How long that thread ran, or was ready to run while another had its CPU."""
    program_ns: int = 0
    program_runs: int = 0


@attrs.frozen(kw_only=True)
class Sample:
    """What was counted between two moments, packets and seconds.

    Args:
        seconds: Time between them.
        offered: Packets that the generator sent.
        received: Packets that came through, or were dropped where that is what is measured.
        core_s: Time that the core spent on packets.
        demand_s: Time in which there were packets to receive.
        program_ns: Mean time of one run of the program; None where there is none, or nobody measured it.
        shares_core: Whether the generator had no CPU of its own but the core's. Then the core is never out of work, and
            what counts is what it spent on receiving.
    """

    seconds: float
    offered: int
    received: int
    core_s: float
    demand_s: float
    program_ns: float | None = None
    shares_core: bool = False

    @classmethod
    def between(cls, first: Moment, last: Moment, *, shares_core: bool = False) -> Sample:
        """Return the difference."""
        runs = last.program_runs - first.program_runs
        return cls(
            seconds=last.at_s - first.at_s,
            offered=last.offered - first.offered,
            received=last.received - first.received,
            core_s=(last.core_ns - first.core_ns) / 1e9,
            demand_s=(last.demand_ns - first.demand_ns) / 1e9,
            program_ns=(last.program_ns - first.program_ns) / runs if runs else None,
            shares_core=shares_core,
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
        if self.shares_core:
            return None
        demand = self.demand_s / self.seconds
        if demand < SATURATED:
            return f"generator-bound: the core had work only {demand:.0%} of the time"
        if self.offered < HEADROOM * self.received:
            return (
                f"generator-bound: it offered only {self.offered / self.received:.2f} times what came through"
            )
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
