"""What a row of the packet table is: a sentence, the engine's tables, and steps.

Each step sends one frame in and says what comes out.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from marchproxy_core.packet.layout import Value
from marchproxy_core.packet.reasons import Hook, Reason, Verdict
from marchproxy_core.testing.packets.places import FRONT, Interface
from marchproxy_core.testing.packets.world import WORLD, World


class Build(enum.Enum):
    """The engine, compiled one way or another."""

    PLAIN = "plain"
    PLAIN_PARTIAL = "plain, with partial checksums"
    XDP = "XDP"
    XDP_PARTIAL = "XDP, with partial checksums"
    XDP_PIECES = "XDP, with partial checksums and frames of several pieces"
    XDP_GENERIC = "XDP, in the stack"
    TC = "TC"

    @property
    def hook(self) -> Hook:
        """The hook that it is, or plays."""
        return Hook.TC if self in (Build.PLAIN, Build.TC) else Hook.XDP


PLAIN = frozenset({Build.PLAIN, Build.PLAIN_PARTIAL})
"""Those whose clock stands still but for :class:`Later`."""
KERNEL = frozenset(Build) - PLAIN
WITHOUT_TC = frozenset(Build) - {Build.TC}
"""For what TC leaves to the kernel, and for frames that the kernel does not let near a TC program."""
FINISHING = frozenset({Build.PLAIN_PARTIAL, Build.XDP_PARTIAL, Build.XDP_PIECES})
"""Those that finish partial checksums, since nobody after them does."""


@attrs.frozen
class Later:
    """Time passes."""

    by_ns: int


@attrs.frozen
class Rearranged:
    """User space writes services, backends and settings anew; flows stay as they are."""

    world: World


@attrs.frozen
class Marked:
    """Fields of ``struct mp_flow`` are written in all flows that are in use, as by user space."""

    fields: Mapping[str, Value]


Change = Later | Rearranged | Marked


@attrs.frozen(kw_only=True)
class Seen:
    """What the engine must know of the one flow there is."""

    client: int
    """``enum mp_seen`` of its packets."""
    backend: int
    ticks: int
    """Until it expires."""


@attrs.frozen(kw_only=True)
class Step:
    """One frame in, one out."""

    frame: bytes
    verdict: Verdict
    reason: Reason
    outs: tuple[bytes, ...] = ()
    """As it must come out, one of these; empty: as it came in."""
    via: Interface = FRONT
    """Where it comes in."""
    service: int | None = None
    """Number of the service that it is counted for; None where that does not matter."""
    changes: tuple[Change, ...] = ()
    """What happens before."""
    seen: Seen | None = None
    loads: Mapping[int, Mapping[str, int]] = attrs.field(factory=dict)
    """Fields of ``struct mp_load`` afterwards, by the number of a service."""
    gso_size: int = 0
    """Bytes of payload in each packet that this one stands for; TC only."""


@attrs.frozen(kw_only=True)
class Row:
    """A row."""

    says: str
    """What is shown, as an English sentence."""
    steps: tuple[Step, ...]
    world: World = WORLD
    builds: frozenset[Build] = frozenset(Build)
    """Those that it is true for."""
    sound: bool = True
    """Whether the tables are such as user space would write them, and must stay so."""

    def fits(self, build: Build) -> bool:
        """Whether a build can run it and is meant to."""
        return build in self.builds and (build in PLAIN or not self.needs_clock)

    @property
    def needs_clock(self) -> bool:
        """Whether time must pass; the kernel's clock cannot be moved."""
        return any(isinstance(change, Later) for step in self.steps for change in step.changes)


def passed(frame: bytes, reason: Reason, *, via: Interface = FRONT, changes: tuple[Change, ...] = ()) -> Step:
    """Return a step whose frame is left alone, for the next tier."""
    return Step(frame=frame, verdict=Verdict.PASS, reason=reason, via=via, changes=changes)


def dropped(
    frame: bytes, reason: Reason, *, via: Interface = FRONT, changes: tuple[Change, ...] = ()
) -> Step:
    """Return a step whose frame is dropped."""
    return Step(frame=frame, verdict=Verdict.DROP, reason=reason, via=via, changes=changes)
