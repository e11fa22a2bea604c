"""Writes docs/parity.md out of what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.parity.tier_site import SETTINGS, TIERS

if TYPE_CHECKING:
    from tests.parity.running import Row

DOCUMENT = Path(__file__).parents[2] / "docs" / "parity.md"
COMMAND = "scripts/parity"

_SETTINGS = ", ".join(f"`{name.upper()}` {value}" for name, value in SETTINGS.items())
_HEAD = f"""# Parity: what can be told from outside

Every tier is a full-NAT proxy, so a service may move between tiers and neither side can tell, apart from
what stands here. A column is added with each tier; those that are not built yet have none.

Written by `{COMMAND}` out of a run; `make test` runs it too, and compares. The same client and the same
server, each in a network namespace, meet through `marchproxy run`, once for each tier, over IPv4 and IPv6;
where these differ, the cell says so. The lower tiers are ready below the one that is looked at, as on any
host. The columns say what was seen; the notes are by hand. The scripts are in `tests/parity/scenarios/`.
Settings of the run, times in seconds: {_SETTINGS}.
All others are the defaults.

"""

_NOT_OBSERVED_HEAD = """
## Not observed by the run, from the design

"""
_NOT_OBSERVED = (
    (
        "congestion control, retransmissions",
        "the proxy's, on each side for itself",
        "the ends' own",
    ),
    (
        "a reset while bytes are on their way",
        "what the proxy has read goes on first, then the reset",
        "a packet among others: what it overtakes, or what was lost before it, is gone",
    ),
    (
        "a worker dies, and bytes of a peer were not read yet",
        "that peer is reset, where it would have been closed",
        "there is none",
    ),
    ("a worker dies, UDP", "its flows begin anew, from another port", "there is none"),
    (
        "a UDP client whose flow ended for `IDLE_TIMEOUT`",
        "his next datagram opens another, to any backend, from any port",
        "the same",
    ),
    (
        "a full table, a limit, a pace",
        "the client is reset, or his datagram is dropped",
        "his packets vanish",
    ),
)


def document(rows: Sequence[Row]) -> str:
    """Return the whole text."""
    differ = [row for row in rows if len(set(row.seen.values())) > 1]
    alike = [row for row in rows if len(set(row.seen.values())) == 1]
    lines = ["## What differs", "", _line("what is looked at", *TIERS, "note"), _rule(len(TIERS) + 2)]
    lines += [_line(row.scenario.question, *_cells(row), row.scenario.note) for row in differ]
    lines += [
        "",
        "## What is the same over every tier",
        "",
        _line("what is looked at", "seen", "note"),
        _rule(3),
    ]
    lines += [_line(row.scenario.question, row.seen[TIERS[0]], row.scenario.note) for row in alike]
    lines += [_NOT_OBSERVED_HEAD + _line("what a client or a backend sees", "sockets", "ebpf, xdp"), _rule(3)]
    lines += [_line(*cells) for cells in _NOT_OBSERVED]
    return _HEAD + "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    """Return what was seen; a cell that says what the one before it says points there instead."""
    cells: list[str] = []
    for before, tier in zip((None, *TIERS), TIERS, strict=False):
        is_same = before is not None and row.seen[before] == row.seen[tier]
        cells.append(f"as {_first_with(row, tier)}" if is_same else row.seen[tier])
    return cells


def _first_with(row: Row, tier: str) -> str:
    return next(one for one in TIERS if row.seen[one] == row.seen[tier])


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
