"""A tier that fails at any stage is reported down, with the stage and the cause, and holds nothing afterwards."""

from __future__ import annotations

import pytest
import trio

from marchproxy_core.engine.life import TierLife
from marchproxy_core.model import ServiceTable
from marchproxy_core.plugins import Tiers
from marchproxy_core.table import Table


def life_of(tier, downs, up):
    return TierLife(
        tier="fake",
        tiers=Tiers.of({"fake": tier}),
        services=Table(ServiceTable()),
        on_up=up.set,
        on_down=downs.append,
        read_stats=tier.read_stats,
    )


@pytest.mark.parametrize(
    ("fails", "stage", "said"),
    [
        ("attach", "attach", "ValueError: in attach"),
        ("unavailable", "unavailable", "need a device, have none"),
        ("attach hangs", "attach", "hung"),
        ("before started", "forward", "OSError: before started"),
        ("start hangs", "forward", "hung"),
        ("running", "running", "RuntimeError: while running"),
        ("", "running", "its runner returned"),
        ("stats", "stats", "no pulse"),
    ],
)
async def test_each_failure_is_reported_once_and_gives_everything_back(
    failing_tier, autojump_clock, fails, stage, said
):
    tier = failing_tier(fails)
    up = tier.break_now if fails != "stats" else trio.Event()
    downs = []
    fault = await life_of(tier, downs, up).run(None)
    assert (fault.stage, downs) == (stage, [fault])
    assert said in str(fault)
    assert tier.held == 0


async def test_a_tier_is_down_before_its_clean_up_begins(failing_tier):
    tier = failing_tier("running")
    held_when_down = []
    up = trio.Event()
    life = life_of(tier, [], up)
    life.on_down = lambda fault: held_when_down.append(tier.held)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run, None)
        await up.wait()
        tier.break_now.set()
    assert held_when_down == [1]
    assert tier.held == 0


async def test_cancelling_a_life_is_no_fault_and_gives_everything_back(failing_tier):
    tier = failing_tier()
    downs = []
    up = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life_of(tier, downs, up).run, None)
        await up.wait()
        assert tier.held == 1
        nursery.cancel_scope.cancel()
    assert downs == []
    assert tier.held == 0


async def test_what_came_since_the_last_pulse_is_counted(failing_tier):
    tier = failing_tier("running")
    life = life_of(tier, [], tier.break_now)
    await life.run(None)
    assert life.last_stats.services["web"].connections_opened == 1
