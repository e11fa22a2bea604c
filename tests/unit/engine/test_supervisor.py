"""A failed tier is tried again, comes back after its probation, and is not trusted faster than it fails."""

from __future__ import annotations

from itertools import pairwise

import trio

from marchproxy_core.engine.supervisor import Supervisor
from marchproxy_core.plugins import Tiers


def supervise(tier, changes, *, needed=False):
    tiers = Tiers.of({"fake": tier})

    async def probe(name):
        await trio.lowlevel.checkpoint()
        return tiers.probe(name, None, None)

    supervisor = Supervisor(
        tier="fake",
        tiers=tiers,
        context=None,
        probe=probe,
        changed=lambda reason: changes.append((trio.current_time(), reason, supervisor.down)),
        needed_now=lambda name: needed,
        detached=lambda name, stats: None,
        read_stats=tier.read_stats,
    )
    return supervisor


async def until(condition):
    with trio.fail_after(1000):  # of the jumping clock
        while not condition():  # noqa: ASYNC110 - the clock jumps; the condition is many states
            await trio.sleep(0.1)


async def test_a_tier_that_starts_well_is_promoted_at_once(failing_tier, autojump_clock):
    changes = []
    supervisor = supervise(failing_tier(), changes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await supervisor.settled()
        assert supervisor.down == ""
        assert [reason for _, reason, _ in changes] == ["promoted"]
        nursery.cancel_scope.cancel()


async def test_a_healed_tier_comes_back_after_pause_and_probation(failing_tier, autojump_clock):
    tier = failing_tier("attach")
    changes = []
    supervisor = supervise(tier, changes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await until(lambda: len(changes) == 3)  # failed at 0, 1 and 3 s
        assert "in attach" in supervisor.down
        tier.fails = ""
        await until(lambda: supervisor.life is not None and "probation" in supervisor.down)
        await until(lambda: supervisor.down == "")
        nursery.cancel_scope.cancel()
    failed = [when for when, reason, _ in changes if reason == "attach"]
    promoted = next(when for when, reason, _ in changes if reason == "promoted")
    assert [round(b - a) for a, b in pairwise(failed)] == [1, 2]
    assert round(promoted - failed[-1]) == 8  # 4 s pause, then 4 s probation
    assert tier.held == 0


async def test_probation_does_not_delay_the_only_tier(failing_tier, autojump_clock):
    tier = failing_tier("attach")
    changes = []
    supervisor = supervise(tier, changes, needed=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await supervisor.settled()
        tier.fails = ""
        await until(lambda: supervisor.down == "")
        nursery.cancel_scope.cancel()
    assert round(changes[-1][0] - changes[0][0]) == 1


async def test_losing_an_interface_ends_the_life_that_stands_on_it(failing_tier, autojump_clock):
    changes = []
    supervisor = supervise(failing_tier(interfaces=frozenset({"veth7"})), changes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await supervisor.settled()
        supervisor.lose_interface("veth8")
        assert supervisor.down == ""
        supervisor.lose_interface("veth7")
        assert "veth7 is gone" in supervisor.down
        assert changes[-1][1] == "interface_gone"
        nursery.cancel_scope.cancel()
