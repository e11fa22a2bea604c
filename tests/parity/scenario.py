"""What a scenario is: a question, and the script of a client and a server that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from tests.parity.stage import Stage

Script = Callable[["Stage"], Awaitable[str]]
"""Returns the observation: a phrase about what was seen, the same words for the same thing."""


@attrs.frozen(kw_only=True)
class Scenario:
    """One row of docs/parity.md; each script runs against every tier, in each IP version."""

    question: str
    script: Script
    protocol: str = "tcp"
    backends: tuple[str, ...] = ("open",)
    """What is behind the service: ``open``, ``refuses``, ``silent``, or ``drained``, which is open with weight 0."""
    options: Mapping[str, object] = attrs.field(factory=dict)
    """More keys of the service."""
    on_every_address: bool = False
    """Whether the service listens on a wildcard."""
    versions: tuple[int, ...] = (4, 6)
    alike: bool = False
    """Whether every tier must show the same."""
    carried_below: bool = False
    """Whether the tier under test may leave this service's traffic to a lower one."""
    long: bool = False
    """Whether it takes so long that it had better begin first."""
    turn: int = 0
    """When it runs: 0 at the same time as others, else after these and alone, since it changes what they share."""
    note: str = ""
    """What a run can't show, for whoever reads the row; by hand."""


def scenario(question: str, **more: object) -> Callable[[Script], Scenario]:
    """Make a script a scenario; the arguments are those of :class:`Scenario`."""
    return lambda script: Scenario(question=question, script=script, **more)
