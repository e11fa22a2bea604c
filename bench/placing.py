"""Which CPUs are whose. Pure.

With three CPUs or more, the peer has one alone, and client and server have the others: else all of them compete for the
same CPUs, and the figure tells how the scheduler divides them. With two it is tight, and a workload says what to do:

- *brake*, for small messages. Client and server together need about as much CPU for one as a proxy does, so on a CPU
  each they and a proxy would be saturated at the same time. The peer's CPU is slowed, for each proxy alike: a real-time
  process takes a part of it in slices of 100 µs. The generators then have room; absolute figures are those of a slower
  CPU.
- *share*, for bulk. What a proxy splices is sent later, when acknowledgements come, on the CPU of whoever sends those.
  On CPUs apart, this part of the proxy's work saturates the generators' CPU, and a brake would not slow it. So all may
  use both CPUs; a proxy that waits for one counts as at work. The same goes for small messages where proxies are
  compared with what runs in the kernel: that has no CPU of its own to be slowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs

from marchproxy_core.errors import MarchProxyError

WhenTight = Literal["brake", "share"]

BRAKE = 0.4


class TooFewCpus(MarchProxyError):
    """A proxy and its generators need two CPUs."""


@attrs.frozen
class Cpus:
    """Which CPUs are whose.

    Args:
        proxy: Where the peer may run.
        generators: Where client and server may run.
        brake: Which share of the peer's CPU is taken away from it.
    """

    proxy: frozenset[int]
    generators: frozenset[int]
    brake: float = 0.0


def place(usable: Iterable[int], when_tight: WhenTight, brake: float = BRAKE) -> Cpus:
    """Divide the usable CPUs between a peer and the generators.

    Args:
        usable: Their numbers.
        when_tight: What to do when there are two.
        brake: The share of its CPU that is then taken from a peer that is braked.

    Raises:
        TooFewCpus: There is only one.
    """
    *others, last = sorted(usable)
    if not others:
        raise TooFewCpus("need two CPUs, have one - fix: run where there are two")
    if len(others) == 1 and when_tight == "share":
        return Cpus(proxy=frozenset([*others, last]), generators=frozenset([*others, last]))
    return Cpus(
        proxy=frozenset([last]), generators=frozenset(others), brake=brake if len(others) == 1 else 0.0
    )
