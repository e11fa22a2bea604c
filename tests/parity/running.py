"""Runs every scenario against every tier, each tier in a lab of its own, all at the same time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

import attrs
import trio

from tests.parity.ends import PATIENCE_S
from tests.parity.scenario import Scenario
from tests.parity.stage import Stage, set_up
from tests.parity.tier_site import TIERS, TierSite, open_site

_AT_ONCE = 16
"""Scripts of one tier that run at the same time; most of them wait."""
_LONGEST_S = 4 * PATIENCE_S


@attrs.frozen
class Row:
    """What was observed for one scenario, by tier."""

    scenario: Scenario
    seen: dict[str, str]


async def observe(scenarios: Sequence[Scenario]) -> tuple[Row, ...]:
    """Run them all, and return a row for each.

    Raises:
        ExceptionGroup: A script failed; a note says which, against which tier.
        LabUnavailable: This host cannot make network namespaces.
    """
    seen: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)

    async def run(tier: str) -> None:
        async with open_site(tier) as site:
            stages = [
                await set_up(site, scenario, version, f"s{number}-v{version}")
                for number, scenario in enumerate(scenarios)
                for version in scenario.versions
            ]
            await site.start()
            await _run_all(site, stages, seen)

    async with trio.open_nursery() as nursery:
        for tier in TIERS:
            nursery.start_soon(run, tier)
    return tuple(
        Row(scenario, {tier: _merged(seen[scenario.question, tier]) for tier in TIERS})
        for scenario in scenarios
    )


def _merged(by_version: dict[int, str]) -> str:
    phrases = list(dict.fromkeys(by_version[version] for version in sorted(by_version)))
    if len(phrases) == 1:
        return phrases[0]
    return "; ".join(f"IPv{version}: {by_version[version]}" for version in sorted(by_version))


async def _run_all(
    site: TierSite, stages: Sequence[Stage], seen: dict[tuple[str, str], dict[int, str]]
) -> None:
    by_turn = sorted(stages, key=lambda stage: (stage.scenario.turn, not stage.scenario.long))
    for turn, group in groupby(by_turn, key=lambda stage: stage.scenario.turn):
        waiting = list(reversed(list(group)))

        async def take_turns(waiting: list[Stage] = waiting) -> None:
            while waiting:
                stage = waiting.pop()
                seen[stage.scenario.question, site.tier][stage.version] = await _perform(stage)

        async with trio.open_nursery() as nursery:
            for _ in range(1 if turn else _AT_ONCE):
                nursery.start_soon(take_turns)
        if not turn:
            elsewhere = await site.carried_elsewhere()
            assert not elsewhere, f"{site.tier} left to lower tiers what it was to carry: {elsewhere}"


async def _perform(stage: Stage) -> str:
    site = stage.site
    try:
        with trio.fail_after(_LONGEST_S):
            observation = await stage.scenario.script(stage)
        assert not site.lost(), "another tier was looked at"
    except Exception as error:
        error.add_note(f"{site.tier}, IPv{stage.version}: {stage.scenario.question}")
        error.add_note("\n".join(site.lost()))
        raise
    else:
        return observation
    finally:
        await stage.close()
