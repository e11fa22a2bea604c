"""The rig fails where and how it is told, and gives back what it took, whatever happens."""

from __future__ import annotations

import threading

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.errors import TierFault, TierUnavailable
from marchproxy_core.host import gather_host_facts
from marchproxy_core.model import AttachContext, Outcome, ServiceTable
from marchproxy_core.plugins import Tiers
from marchproxy_core.services import Backend, Endpoint, Service
from marchproxy_core.table import Table
from marchproxy_core.testing.census import ResourceCensus, assert_nothing_leaked
from marchproxy_core.testing.fault_rig import STEPS, FaultyError, FaultyTier, How, Stage
from marchproxy_core.testing.waiting import until

HERE = Endpoint.parse("127.0.0.1:80")
WEB = Service(name="web", listen=(HERE,), backends=(Backend(endpoint=HERE),))


async def live(tier, during=None):
    """Attach and run as the engine does, until `during` returns or something fails."""
    tiers = Tiers.of({"faulty": tier})
    context = AttachContext(settings=Settings(), host=gather_host_facts(), observe=lambda seen: None)
    async with tiers.attach("faulty", context) as attachment, trio.open_nursery() as nursery:
        await nursery.start(tiers.forward("faulty", attachment, Table(ServiceTable())))
        tiers.stats("faulty", attachment)
        if during is not None:
            await during(nursery)
        nursery.cancel_scope.cancel()


async def test_a_healthy_rig_takes_every_resource_and_gives_it_back(tmp_path):
    before = ResourceCensus.take([tmp_path])
    tier = FaultyTier(directory=tmp_path)

    async def look(nursery):
        leaked = ResourceCensus.take([tmp_path]).leaked_since(before)
        kinds = {line.partition(":")[0] for line in leaked}
        assert {"descriptors", "children", "tasks", "files"} <= kinds

    await live(tier, look)
    assert (tier.lives, tier.attached, tier.met) == (1, 0, [])
    await assert_nothing_leaked(before, [tmp_path])


@pytest.mark.parametrize("how", [How.RAISE, How.HANG, How.UNAVAILABLE])
@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
async def test_attaching_fails_before_each_step(tmp_path, step, how):
    before = ResourceCensus.take([tmp_path])
    tier = FaultyTier(directory=tmp_path)
    tier.fail(Stage.ATTACH, how, step)
    await fails(tier, how)
    assert [fault.step for fault in tier.met] == [step]
    await assert_nothing_leaked(before, [tmp_path])


@pytest.mark.parametrize(
    ("stage", "how"),
    [(stage, how) for stage in (Stage.STARTING, Stage.DETACH) for how in (How.RAISE, How.HANG)]
    + [(Stage.STATS, How.RAISE), (Stage.STATS, How.GARBAGE), (Stage.STARTING, How.RETURN)],
)
async def test_later_stages_fail_and_everything_is_given_back(tmp_path, stage, how):
    before = ResourceCensus.take([tmp_path])
    tier = FaultyTier(directory=tmp_path)
    tier.fail(stage, how)
    if stage is Stage.DETACH and how is How.HANG:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, tier)
            while not tier.met:
                await trio.lowlevel.checkpoint()
            assert tier.attached == 1
            tier.heal()
    else:
        await fails(tier, how)
    assert [fault.stage for fault in tier.met] == [stage]
    await assert_nothing_leaked(before, [tmp_path])


@pytest.mark.parametrize("how", [How.RAISE, How.RETURN])
async def test_a_running_runner_fails_at_once_on_command(tmp_path, how):
    before = ResourceCensus.take([tmp_path])
    tier = FaultyTier(directory=tmp_path)

    async def command(nursery):
        assert tier.met == []
        tier.fail(Stage.RUNNING, how)
        while not tier.met:
            await trio.lowlevel.checkpoint()
        if how is How.RAISE:
            await trio.sleep_forever()

    if how is How.RAISE:
        with pytest.RaisesGroup(FaultyError, flatten_subgroups=True):
            await live(tier, command)
    else:
        await live(tier, command)
    await assert_nothing_leaked(before, [tmp_path])


@pytest.mark.parametrize("how", [How.LOOP, How.BLOCK])
async def test_a_running_runner_occupies_the_trio_thread_until_released(tmp_path, how):
    tier = FaultyTier(directory=tmp_path, steps=())
    occupied = threading.Event()

    def release():
        occupied.wait(10)
        tier.release()

    async def command(nursery):
        tier.fail(Stage.RUNNING, how)
        occupied.set()
        while not tier.met:
            await trio.lowlevel.checkpoint()

    thread = threading.Thread(target=release)
    thread.start()
    with trio.fail_after(10):
        await live(tier, command)
    thread.join()
    assert [fault.how for fault in tier.met] == [how]


async def test_deciding_hooks_fail_in_their_thread():
    tier = FaultyTier()
    tiers = Tiers.of({"faulty": tier})

    def probe():
        return tiers.probe("faulty", None, Settings())

    for how, said in ((How.RAISE, "on command"), (How.GARBAGE, "want ProbeReport")):
        tier.fail(Stage.PROBE, how)
        with pytest.raises(TierFault, match=said):
            probe()
    tier.fail(Stage.PROBE, How.UNKNOWN)
    assert probe().outcome is Outcome.UNKNOWN
    tier.fail(Stage.CLASSIFY, How.RAISE)
    with pytest.raises(TierFault, match="on command"):
        tiers.classify("faulty", WEB, probe())
    tier.fail(Stage.PROBE, How.HANG)
    with trio.move_on_after(0.05) as patience:
        await trio.to_thread.run_sync(probe, abandon_on_cancel=True)
    assert patience.cancelled_caught
    tier.heal()
    assert probe().outcome is Outcome.USABLE


async def fails(tier, how):
    """Run a life that must fail in the way told."""
    if how is How.HANG:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live, tier)

            async def hangs() -> bool:
                return bool(tier.met)

            await until(hangs, what="a tier that hangs")
            nursery.cancel_scope.cancel()
        return
    expected = {
        How.UNAVAILABLE: pytest.RaisesExc(TierUnavailable, match="fails on command"),
        How.RETURN: pytest.RaisesExc(RuntimeError, match="exited without calling"),
        How.GARBAGE: pytest.RaisesExc(TierFault, match="returned str, want TierStats"),
    }.get(how)
    if expected is None:  # the facade wraps what a hook raises; what it returned raises by itself
        kind = TierFault if tier.fault.stage is Stage.STATS else FaultyError
        expected = pytest.RaisesExc(kind, match="on command")
    with pytest.RaisesGroup(expected, allow_unwrapped=True, flatten_subgroups=True):
        await live(tier)
