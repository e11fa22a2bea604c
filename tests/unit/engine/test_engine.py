"""Services move between tiers, and real clients on real sockets notice nothing that they need not."""

from __future__ import annotations

import ctypes
import socket
import threading
import time
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import structlog
import trio
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from marchproxy_core.config import Config, Enable, Settings
from marchproxy_core.engine import crew, pauses
from marchproxy_core.engine.engine import Engine
from marchproxy_core.engine.netwatch import watch_interfaces
from marchproxy_core.engine.watchdog import Watchdog
from marchproxy_core.errors import StartRefused
from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.listeners import ListenerSet
from marchproxy_core.model import (
    Carries,
    ProbeReport,
    Requirement,
    Role,
    ServiceStats,
    TierState,
    TierStats,
)
from marchproxy_core.plugins import Tiers
from marchproxy_core.services import Backend, Endpoint, Service


def echo_service():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        here = Endpoint.parse(f"127.0.0.1:{sock.getsockname()[1]}")
    return Service(name="echo", listen=(here,), backends=(Backend(endpoint=here),))


def engine_of(*tiers, service=None, **settings):
    config = Config(settings=attrs.evolve(Settings(), **settings), services=(service or echo_service(),))
    plugins = Tiers.of({tier.name: tier for tier in tiers})
    return Engine(config=config, tiers=plugins, host=None, listeners=ListenerSet(1))


async def client_of(engine, service=None):
    here = (service or engine.config.services[0]).listen[0]
    stream = await trio.open_tcp_stream(str(here.ip), here.port)
    return stream, (await stream.receive_some(100)).decode().strip()


async def echoes(stream, data):
    await stream.send_all(data)
    return await stream.receive_some(100) == data


async def refused(engine, service=None):
    """Return once a client is refused: the tier's own duplicate may be open for a moment more."""
    with trio.fail_after(10):
        while True:
            try:
                stream, _ = await client_of(engine, service)
            except OSError:
                return
            await stream.aclose()


def flat(error):
    return (
        [one for inner in error.exceptions for one in flat(inner)]
        if hasattr(error, "exceptions")
        else [error]
    )


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.01)


async def test_the_highest_tier_serves_and_the_next_takes_over_when_it_breaks(echo_tier, nursery):
    high, low = echo_tier("high", 100, fails="running"), echo_tier("low", 700)
    engine = engine_of(high, low)
    await nursery.start(engine.run)
    stream, name = await client_of(engine)
    assert name == "high"
    assert engine.ready
    high.break_now.set()
    await until(lambda: engine.plan.services[0].chosen == "low")
    after, name = await client_of(engine)
    assert name == "low"
    assert await echoes(after, b"still here")
    assert engine.moves["high", "low", "running"] == 1
    assert next(row.state for row in engine.plan.tiers if row.name == "high") is TierState.FAULTED
    await stream.aclose()
    await after.aclose()


async def test_a_healed_tier_is_promoted_and_the_lower_ones_clients_stay(echo_tier, nursery):
    high, low = echo_tier("high", 100, fails="attach"), echo_tier("low", 700)
    engine = engine_of(high, low)
    await nursery.start(engine.run)
    early, name = await client_of(engine)
    assert name == "low"
    high.fails = ""
    await until(lambda: engine.plan.services[0].chosen == "high")
    await until(lambda: high.lives > 1)
    late, name = await client_of(engine)
    assert name == "high"
    assert await echoes(early, b"not cut off")
    assert engine.moves["low", "high", "promoted"] == 1
    await early.aclose()
    await late.aclose()


async def test_it_is_ready_once_the_tier_does_what_its_table_says(echo_tier, nursery):
    tier = echo_tier("only", 100)
    tier.may_take = trio.Event()
    engine = engine_of(tier)
    nursery.start_soon(nursery.start, engine.run)
    await until(lambda: engine.plan.services)
    await trio.testing.wait_all_tasks_blocked()
    assert not engine.ready
    tier.may_take.set()
    await until(lambda: engine.ready)


async def test_a_reload_returns_once_the_tier_does_what_it_says(echo_tier, nursery):
    tier = echo_tier("only", 100)
    engine = engine_of(tier)
    await nursery.start(engine.run)
    tier.may_take = trio.Event()
    reloaded = trio.Event()

    async def reload():
        await engine.apply(engine.config)
        reloaded.set()

    nursery.start_soon(reload)
    await trio.testing.wait_all_tasks_blocked()
    assert not reloaded.is_set()
    assert engine.ready
    tier.may_take.set()
    await reloaded.wait()


async def test_a_tier_that_fails_instead_of_taking_its_table_holds_up_nobody(echo_tier, nursery):
    high, low = echo_tier("high", 100, fails="running"), echo_tier("low", 700)
    high.may_take = trio.Event()
    engine = engine_of(high, low)
    nursery.start_soon(nursery.start, engine.run)
    await until(lambda: engine.plan.services)
    high.break_now.set()
    await until(lambda: engine.ready)
    assert engine.plan.services[0].chosen == "low"


async def test_a_tier_that_does_not_take_its_table_in_time_is_told_and_waited_for_no_longer(
    echo_tier, nursery, monkeypatch
):
    monkeypatch.setattr(crew, "_TAKE_DEADLINE_S", 0.01)
    tier = echo_tier("only", 100)
    tier.may_take = trio.Event()
    engine = engine_of(tier)
    with structlog.testing.capture_logs() as events:
        await nursery.start(engine.run)
    assert engine.ready
    assert [one["tier"] for one in events if one["event"] == "tier.delayed"] == ["only"]


@pytest.fixture
def short_pauses(monkeypatch):
    monkeypatch.setattr(pauses, "FIRST_PAUSE_S", 0.01)


class Unsure:
    """Makes a tier's probe answer `met` for its one need."""

    met = None
    asked = 0

    @hookimpl
    def probe(self, host, settings):
        self.asked += 1
        needs = Requirement(need="a device", have="could not look", met=self.met)
        return ProbeReport(order=self.order, carries=Carries.CONNECTIONS, requirements=(needs,))


def state(engine, tier):
    return next(row.state for row in engine.plan.tiers if row.name == tier)


async def test_a_tier_that_could_not_tell_is_asked_again_and_gets_its_services(
    echo_tier, nursery, short_pauses
):
    high, low = type("High", (Unsure, echo_tier), {})("high", 100), echo_tier("low", 700)
    engine = engine_of(high, low)
    await nursery.start(engine.run)
    assert (state(engine, "high"), engine.plan.services[0].chosen) == (TierState.UNKNOWN, "low")
    early, _ = await client_of(engine)
    await until(lambda: high.asked > 2)
    with structlog.testing.capture_logs() as events:
        high.met = True
        await until(lambda: engine.plan.services[0].chosen == "high")
    told = [event for event in events if event["event"] == "tier.probed_again"]
    assert [(event["tier"], event["outcome"]) for event in told] == [("high", "usable")]
    late, name = await client_of(engine)
    assert name == "high"
    assert await echoes(early, b"not cut off")
    asked = high.asked
    await engine.apply(engine.config)
    assert high.asked == asked + 1
    await early.aclose()
    await late.aclose()


async def test_a_tier_that_is_told_to_be_refused_is_shown_so_and_asked_no_more(
    echo_tier, nursery, short_pauses
):
    high, low = type("High", (Unsure, echo_tier), {})("high", 100), echo_tier("low", 700)
    engine = engine_of(high, low)
    await nursery.start(engine.run)
    high.met = False
    await until(lambda: state(engine, "high") is TierState.REFUSED)
    assert engine.plan.services[0].chosen == "low"
    assert high.lives == 0


async def test_a_tier_that_could_not_tell_when_the_configuration_was_reloaded_is_asked_again(
    echo_tier, nursery, short_pauses
):
    high, low = type("High", (Unsure, echo_tier), {"met": False})("high", 100), echo_tier("low", 700)
    engine = engine_of(high, low)
    await nursery.start(engine.run)
    high.met = None
    await engine.apply(engine.config)
    assert state(engine, "high") is TierState.UNKNOWN
    high.met = True
    await until(lambda: engine.plan.services[0].chosen == "high")


async def test_probes_after_the_first_see_the_host_as_it_is_by_then(echo_tier, nursery, short_pauses):
    class Looking(Unsure, echo_tier):
        @hookimpl
        def probe(self, host, settings):
            self.met = True if host == "with the device" else None
            return super().probe(host, settings)

    engine = engine_of(Looking("high", 100), echo_tier("low", 700))
    seen = {"host": "without"}
    engine.host, engine.look_again = "without", lambda before: seen["host"]
    await nursery.start(engine.run)
    assert state(engine, "high") is TierState.UNKNOWN
    seen["host"] = "with the device"
    await until(lambda: engine.plan.services[0].chosen == "high")
    seen["host"] = "without"
    await engine.apply(engine.config)
    assert engine.plan.services[0].chosen == "low"


async def test_a_look_at_the_host_that_fails_leaves_the_old_facts(echo_tier, nursery):
    def fail(before):
        raise NetlinkDumpInterrupted

    engine = engine_of(echo_tier("only", 700))
    engine.host, engine.look_again = "old", fail
    await nursery.start(engine.run)
    with structlog.testing.capture_logs() as events:
        await engine.apply(engine.config)
    assert "host.look_failed" in [event["event"] for event in events]
    assert (engine.host, engine.plan.services[0].chosen) == ("old", "only")


async def test_drain_refuses_new_clients_and_waits_for_the_others(echo_tier):
    engine = engine_of(echo_tier("only", 700), drain_timeout=30.0)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            stream, _ = await client_of(engine)
            engine.drain()
            assert not engine.ready
            await refused(engine)
            assert await echoes(stream, b"to the end")
            await stream.aclose()
        # The nursery ends only when run() returned.


async def test_a_drain_while_the_daemon_starts_ends_it_without_taking_anybody(echo_tier):
    class Slow(echo_tier):
        @hookimpl
        def attach(self, context):
            return self._after(self.go_on)

        @asynccontextmanager
        async def _after(self, event):
            await event.wait()
            async with self._attached() as attachment:
                yield attachment

    tier = Slow("only", 700)
    tier.go_on = trio.Event()
    engine = engine_of(tier)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nursery.start, engine.run)
            await until(lambda: tier.name in engine._crew)
            engine.drain()
            tier.go_on.set()
    assert not engine.ready
    assert engine.plan.services == ()


@pytest.mark.parametrize("how", ["drain", "reload"])
async def test_clients_in_the_accept_queue_are_served_when_their_service_goes(echo_tier, nursery, how):
    tier = echo_tier("only", 700)
    stays, goes = (attrs.evolve(echo_service(), name=name) for name in ("stays", "goes"))
    engine = engine_of(tier, service=stays, drain_timeout=30.0)
    engine.config = attrs.evolve(engine.config, services=(stays, goes))
    await nursery.start(engine.run)
    tier.busy = True
    here = goes.listen[0]
    queued = [await trio.open_tcp_stream(str(here.ip), here.port) for _ in range(3)]
    assert tier.active == 0
    if how == "drain":
        engine.drain()
    else:
        await engine.apply(attrs.evolve(engine.config, services=(stays,)))
    for stream in queued:
        assert await stream.receive_some(100) == b"only\n"
        assert await echoes(stream, b"served")
    await refused(engine, goes)
    for stream in queued:
        await stream.aclose()


async def test_a_client_that_never_ends_is_cut_off_after_the_drain_timeout(echo_tier):
    engine = engine_of(echo_tier("only", 700), drain_timeout=0.3)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            stream, _ = await client_of(engine)
            engine.drain()
        assert await stream.receive_some(10) == b""
        await stream.aclose()


@pytest.mark.parametrize("keep", [True, False])
async def test_told_to_keep_attached_a_drain_leaves_a_tier_that_outlives_it_as_it_is(echo_tier, keep):
    class Lasting(echo_tier):
        stayed = None

        @hookimpl
        def attach(self, context):
            return self._lasting(context)

        @asynccontextmanager
        async def _lasting(self, context):
            async with self._attached() as attachment:
                attachment.outlives = True
                assert not context.stays()
                try:
                    yield attachment
                finally:
                    self.stayed = context.stays()

    tier = Lasting("only", 700)
    engine = engine_of(tier, drain_timeout=30.0 if keep else 0.0)
    engine.keep_attached = keep
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            stream, _ = await client_of(engine)
            engine.drain()
        await stream.aclose()
    assert tier.stayed is keep
    roles = {one.role for one in tier.services.current.assignments.values()}
    assert roles == {Role.CHOSEN if keep else Role.DRAINING}


async def test_a_reload_keeps_what_stays_adds_what_comes_and_drains_what_goes(echo_tier, nursery):
    stays, goes, comes = (attrs.evolve(echo_service(), name=name) for name in ("stays", "goes", "comes"))
    engine = engine_of(echo_tier("only", 700), service=stays, drain_timeout=30.0)
    engine.config = attrs.evolve(engine.config, services=(stays, goes))
    await nursery.start(engine.run)
    kept, _ = await client_of(engine, stays)
    leaving, _ = await client_of(engine, goes)
    before = engine.listeners.of(stays)[0]
    await engine.apply(attrs.evolve(engine.config, services=(stays, comes)))
    assert engine.listeners.of(stays)[0] is before
    fresh, name = await client_of(engine, comes)
    assert name == "only"
    assert await echoes(kept, b"unchanged")
    assert await echoes(leaving, b"drains")
    await refused(engine, goes)
    for stream in (kept, leaving, fresh):
        await stream.aclose()


async def test_a_service_that_is_gone_is_forgotten_and_counts_anew_when_it_comes_back(echo_tier, nursery):
    class Counting(echo_tier):
        @hookimpl
        def stats(self, attachment):
            names = self.services.current.assignments
            return TierStats(services={name: ServiceStats(connections_opened=1) for name in names})

    stays, goes = (attrs.evolve(echo_service(), name=name) for name in ("stays", "goes"))
    tier = Counting("only", 700)
    engine = engine_of(tier, service=stays)
    with_both = attrs.evolve(engine.config, services=(stays, goes))
    engine.config = with_both
    await nursery.start(engine.run)
    seen = lambda: engine.stats()["only"].services  # noqa: E731 - short
    await until(lambda: len(seen()) == 2)
    await engine.apply(attrs.evolve(engine.config, services=(stays,)))
    await until(lambda: set(seen()) == {"stays"})
    await engine.apply(with_both)
    await until(lambda: len(seen()) == 2)
    assert seen()["goes"].connections_opened == 1
    assert seen()["stays"].connections_opened == 1


async def test_a_reload_that_removes_nothing_has_nothing_to_drain(echo_tier, nursery):
    engine = engine_of(echo_tier("only", 700))
    await nursery.start(engine.run)
    with structlog.testing.capture_logs() as events:
        more = attrs.evolve(echo_service(), name="more")
        await engine.apply(attrs.evolve(engine.config, services=(*engine.config.services, more)))
        await engine.apply(attrs.evolve(engine.config, services=(more,)))
        await until(lambda: any(event["event"] == "drain.finished" for event in events))
    drained = [event["services"] for event in events if event["event"] == "drain.finished"]
    assert drained == [["echo"]]


async def test_a_service_that_comes_back_while_it_drains_is_not_said_to_be_cut_off(echo_tier, nursery):
    class Busy(echo_tier):
        @hookimpl
        def stats(self, attachment):
            names = self.services.current.assignments
            return TierStats(services={name: ServiceStats(connections_active=1) for name in names})

    goes, back = (attrs.evolve(echo_service(), name=name) for name in ("goes", "back"))
    engine = engine_of(Busy("only", 700), service=back, drain_timeout=0.3)
    only_goes, only_back = (attrs.evolve(engine.config, services=(one,)) for one in (goes, back))
    await nursery.start(engine.run)
    with structlog.testing.capture_logs() as events:
        await engine.apply(only_goes)
        await engine.apply(only_back)  # its drain ends later than the first one's would
        await until(lambda: any(event["event"] == "drain.cut_off" for event in events))
    assert [one["services"] for one in events if one["event"].startswith("drain")] == [["goes"]]


async def test_a_drain_goes_on_with_what_a_reload_had_begun_to_drain(echo_tier):
    stays, goes = (attrs.evolve(echo_service(), name=name) for name in ("echo", "goes"))
    engine = engine_of(echo_tier("only", 700), service=stays, drain_timeout=30.0)
    engine.config = attrs.evolve(engine.config, services=(stays, goes))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            leaving, _ = await client_of(engine, goes)
            await engine.apply(attrs.evolve(engine.config, services=(stays,)))
            engine.drain()
            table = engine._crew["only"].services.current
            assert {name: one.role for name, one in table.assignments.items()} == {
                "echo": Role.DRAINING,
                "goes": Role.DRAINING,
            }
            await leaving.aclose()


async def test_a_reload_that_cannot_be_carried_changes_nothing(echo_tier, nursery):
    service = echo_service()
    engine = engine_of(echo_tier("only", 700), service=service)
    await nursery.start(engine.run)
    pinned = attrs.evolve(service, tier="absent")
    with pytest.raises(StartRefused, match="not installed"):
        await engine.apply(attrs.evolve(engine.config, services=(pinned,)))
    assert engine.config.services == (service,)
    stream, name = await client_of(engine)
    assert name == "only"
    await stream.aclose()


@pytest.mark.parametrize("how", ["a loop", "a blocking call"])
async def test_a_tier_that_blocks_the_event_loop_is_freed_and_demoted(echo_tier, nursery, how):
    class Blocking(echo_tier):
        async def _run(self, *, task_status):
            task_status.started()
            await self.break_now.wait()
            end = time.monotonic() + 60  # only if the watchdog fails
            while time.monotonic() < end:
                if how == "a blocking call":
                    threading.Event().wait(60)

    high, low = Blocking("high", 100), echo_tier("low", 700)
    engine = engine_of(high, low)
    engine.watchdog = Watchdog(patience_s=0.6)
    await nursery.start(engine.run)
    high.break_now.set()
    await until(lambda: engine.plan.services[0].chosen == "low")
    assert "blocked the event loop" in engine.plan.services[0].decision.candidates[0].reason
    assert engine.moves["high", "low", "hung"] == 1
    stream, name = await client_of(engine)
    assert name == "low"
    await stream.aclose()


async def test_start_is_refused_when_the_required_tier_cannot_attach(echo_tier):
    high, low = echo_tier("high", 100, fails="attach"), echo_tier("low", 700)
    engine = engine_of(high, low, enable={"high": Enable.TRUE})
    with pytest.RaisesGroup(StartRefused, flatten_subgroups=True) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
    (refused,) = flat(caught.value)
    assert "'high' is required but faulted" in str(refused)
    assert high.held == low.held == 0


@pytest.mark.root
def test_netlink_says_at_once_that_an_interface_is_gone():
    lost = []

    async def watch():
        async with trio.open_nursery() as nursery:
            gone = trio.Event()
            await nursery.start(partial(watch_interfaces, lambda name: (lost.append(name), gone.set())))
            # In this thread: one of trio's would stay in the namespace, and connect from there in later tests.
            drop()
            with trio.fail_after(5):
                await gone.wait()
            nursery.cancel_scope.cancel()

    def drop():
        with IPRoute() as netlink:
            netlink.link("add", ifname="brief0", kind="veth", peer={"ifname": "brief1"})
            netlink.link("del", ifname="brief0")

    libc = ctypes.CDLL(None, use_errno=True)

    def alone():
        if libc.unshare(0x40000000):  # CLONE_NEWNET, for this thread alone
            raise OSError(ctypes.get_errno(), "unshare")
        trio.run(watch)

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join(20)
    assert {"brief0", "brief1"} & set(lost)


async def test_the_last_service_of_a_tier_is_drained_too(echo_tier, nursery):
    last = echo_service()
    tier = echo_tier("only", 700)
    engine = engine_of(tier, service=last, drain_timeout=30.0)
    await nursery.start(engine.run)
    leaving, _ = await client_of(engine, last)
    await engine.apply(attrs.evolve(engine.config, services=()))
    assert {name: one.role for name, one in tier.services.current.assignments.items()} == {
        "echo": Role.DRAINING
    }
    assert await echoes(leaving, b"drains")
    await refused(engine, last)
    await leaving.aclose()
