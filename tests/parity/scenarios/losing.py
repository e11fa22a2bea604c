"""Services, workers and daemons that go away, with a connection open."""

from __future__ import annotations

import os
import signal
from collections import Counter

import trio

from marchproxy_core.testing import until
from tests.parity.ends import PATIENCE_S, fate_of, goes_on
from tests.parity.scenario import scenario

_PAUSE_S = 0.5
_ONE = (4,)
"""How a process ends has nothing to do with the version of IP."""
_DRAINING = "What is there has `DRAIN_TIMEOUT` to end by itself."


@scenario("a reload takes the service out", turn=6, versions=_ONE, note=_DRAINING)
async def taken_out(stage):
    site = stage.site

    async def reload():
        site.packets.write(*(service for service in site.services if service is not stage.service))
        answer = await site.daemon.ask("/admin/reload", "POST")
        assert answer.status_code == 200, answer.text

    return await _drained(stage, reload)


async def _drained(stage, begin):
    """See what becomes of newcomers, and of one who is there, before and after the timeout."""
    daemon = stage.site.daemon
    client, backend = await stage.pair()
    assert await goes_on(client, backend)
    earlier = _ends_of_drains(daemon)

    def is_over():
        return bool(_ends_of_drains(daemon) - earlier)

    async with trio.open_nursery() as nursery:
        # Not waited for: its answer comes when every tier has caught up, and a part of the timeout is over by then.
        nursery.start_soon(begin)
        new = await _newcomer_of_a_drain(stage)
        before = "goes on" if await goes_on(client, backend) else "is cut off"
        is_late = "drain.cut_off" in _ends_of_drains(daemon) - earlier
        assert before == "goes on" or not is_late, "looked at when `DRAIN_TIMEOUT` was over"
        await until(is_over, deadline_s=PATIENCE_S, what="the end of the drain")
    after = await fate_of(client, backend)
    return f"a new client {new}; one that is there {before}, and after `DRAIN_TIMEOUT` {after}"


def _ends_of_drains(daemon):
    """Which of the two is told depends on whether there was something to cut off; what became of it, we see."""
    return Counter({name: len(daemon.events(name)) for name in ("drain.cut_off", "drain.finished")})


async def _newcomer_of_a_drain(stage):
    async def is_open_no_more():
        return await stage.comes() != "is served"

    async with stage.greeting():
        await until(is_open_no_more, deadline_s=PATIENCE_S, what="nothing new is taken")
        # Once more: the first one may have been in the queue of a listener that was just closed.
        return await stage.comes()


@scenario("every worker dies (SIGKILL)", turn=7, versions=_ONE, note="Packet tiers have none.")
async def worker_dies(stage):
    client, backend = await stage.pair()
    assert await goes_on(client, backend)
    killed = stage.site.daemon.workers
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    there = await fate_of(client, backend)
    return f"one that is there {there}; {await _newcomer(stage)}"


async def _newcomer(stage):
    async with stage.greeting():
        return f"a new client {await stage.comes()}"


@scenario(
    "the daemon is killed (SIGKILL)",
    turn=8,
    versions=_ONE,
    note="Programs and flows stay in the kernel, pinned; the next daemon goes on with them.",
)
async def daemon_is_killed(stage):
    site = stage.site
    client, backend = await stage.pair()
    assert await goes_on(client, backend)
    workers = site.daemon.workers
    site.packets.kill(site.daemon)
    await site.daemon.exit_status()
    await site.packets.gone(*workers)
    there, new = await fate_of(client, backend), await _newcomer(stage)
    await _start_again(site, client, backend)
    after = await _newcomer(stage)
    if there == "goes on":
        there += f", and under the next daemon {await fate_of(client, backend)}"
    return (
        f"one that is there {there}; {new}, and after the next daemon's start {after.partition('client ')[2]}"
    )


async def _start_again(site, client, backend):
    """Start a daemon; meanwhile the connection is in use, lest it be idle for too long."""
    is_started = trio.Event()

    async def use():
        while not is_started.is_set() and await goes_on(client, backend):
            with trio.move_on_after(_PAUSE_S):
                await is_started.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        await site.start()
        is_started.set()


@scenario("the daemon drains (SIGTERM)", turn=9, versions=_ONE, note=_DRAINING)
async def daemon_drains(stage):
    daemon = stage.site.daemon

    async def terminate():
        daemon.signal(signal.SIGTERM)
        await daemon.exit_status()

    return await _drained(stage, terminate)
