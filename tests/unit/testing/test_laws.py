"""The kit catches tiers whose hooks or end break a law, and tells what a tier declines from what it cannot do here."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import Requirement, TierStats
from marchproxy_core.services import Protocol
from marchproxy_core.testing import LAWS, FakeTier, NotApplicable, obey, open_loopback_wire
from marchproxy_core.testing.fake_relay import Relay
from marchproxy_core.testing.laws import ending, hooks, traffic
from marchproxy_core.testing.subject import CannotRun

left_open = []  # what broken tiers leak, closed after each test


@pytest.fixture(autouse=True)
def clean_up_after_broken_tiers():
    yield
    while left_open:
        left_open.pop().close()


class ProbeWithoutFix(FakeTier):
    requirements = ()

    def report(self):
        return attrs.evolve(
            super().report(), requirements=(Requirement(need="a NIC", have="none", met=False),)
        )


class ProbeLeavesSocket(FakeTier):
    def report(self):
        left_open.append(socket.socket())
        return super().report()


class ProbeChangesItsMind(FakeTier):
    def report(self):
        loses = "" if self.probes % 2 else "speed, sometimes"
        return attrs.evolve(super().report(), loses=loses)


class ProbeNeedsRights(FakeTier):
    def report(self):
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
        return super().report()


class ClassifyWithoutReason(FakeTier):
    @hookimpl
    def classify(self, service, report):
        return attrs.evolve(super().classify(service, report), reason="")


class ClassifyRemembers(FakeTier):
    seen = 0

    @hookimpl
    def classify(self, service, report):
        self.seen += 1
        return attrs.evolve(super().classify(service, report), reason=f"the {self.seen}th time")


class AttachLeavesSocket(FakeTier):
    @asynccontextmanager
    async def _attached(self, context):
        left_open.append(socket.socket())
        async with super()._attached(context) as attachment:
            yield attachment


class AttachLeavesThread(FakeTier):
    @asynccontextmanager
    async def _attached(self, context):
        stop = threading.Event()
        threading.Thread(target=stop.wait, name="left-behind").start()
        left_open.append(type("Stop", (), {"close": staticmethod(stop.set)}))
        async with super()._attached(context) as attachment:
            yield attachment


class AttachLosesSocketWhenCancelled(FakeTier):
    @asynccontextmanager
    async def _attached(self, context):
        sock = socket.socket()
        left_open.append(sock)
        await trio.lowlevel.checkpoint()
        try:
            async with super()._attached(context) as attachment:
                yield attachment
        finally:
            sock.close()


class StatsNeedTraffic(FakeTier):
    @hookimpl
    def stats(self, attachment):
        return TierStats(services={"web": attachment.counters["web"].snapshot()})


class KeepsClients(Relay):
    async def _connection(self, served, client):
        left_open.append(socket.socket(fileno=os.dup(client.fileno())))
        await super()._connection(served, client)


class KeepsFlows(Relay):
    async def _new_flow(self, served, known):
        flow = await super()._new_flow(served, known)
        left_open.append(socket.socket(fileno=os.dup(flow.fileno())))
        return flow


class WantsServicesAtOnce(Relay):
    async def run(self, services, *, task_status):
        if not services.current.assignments:
            raise RuntimeError("nothing to do")
        await super().run(services, task_status=task_status)


class EndsByItself(FakeTier):
    @hookimpl
    def forward(self, attachment, services):
        async def run(*, task_status):
            task_status.started()

        return run


def relaying(relay):
    return lambda: FakeTier(make_relay=relay)


BROKEN = {
    hooks.probe_reports_what_it_needs_and_leaves_no_trace: (
        (ProbeWithoutFix, "no fix is given"),
        (ProbeLeavesSocket, "leaked:\n  descriptors: .*socket"),
        (ProbeChangesItsMind, "probed twice"),
    ),
    hooks.probe_needs_no_root: ((ProbeNeedsRights, "PermissionError"),),
    hooks.classify_is_pure_and_gives_its_reason: (
        (ClassifyWithoutReason, "has no reason"),
        (ClassifyRemembers, "classified plain twice"),
    ),
    hooks.attach_gives_everything_back_and_can_follow_itself: (
        (AttachLeavesSocket, "leaked:\n  descriptors: .*socket"),
        (AttachLeavesThread, "leaked:\n  threads: left-behind"),
    ),
    hooks.attach_cancelled_at_any_checkpoint_gives_everything_back: (
        (AttachLosesSocketWhenCancelled, "leaked:\n  descriptors: .*socket"),
    ),
    hooks.stats_answer_as_soon_as_the_tier_runs: ((StatsNeedTraffic, "KeyError"),),
    ending.cancelled_with_connections_open_it_gives_everything_back: (
        (relaying(KeepsClients), "left hanging|leaked"),
    ),
    ending.cancelled_with_flows_open_it_gives_everything_back: ((relaying(KeepsFlows), "leaked"),),
    ending.an_empty_table_and_a_second_life_work: (
        (relaying(WantsServicesAtOnce), "nothing to do"),
        (EndsByItself, "runner returned"),
    ),
}


def test_every_law_has_a_tier_that_breaks_it():
    assert set(BROKEN) == {*hooks.LAWS, *ending.LAWS}


async def test_a_tier_that_breaks_the_law_is_caught(assert_caught, law, make, said):
    await assert_caught(law, make(), said)


async def test_a_plugin_without_hooks_is_an_error_not_a_skip():
    async with open_loopback_wire() as wire:
        with pytest.raises(AssertionError, match="lacks the hook"):
            await obey(LAWS[0], object(), wire)


async def test_what_a_tier_declines_is_named_with_its_reason():
    tier = FakeTier(declines=lambda service: "no UDP yet" if service.protocol is Protocol.UDP else "")
    async with open_loopback_wire() as wire:
        with pytest.raises(NotApplicable, match="declines a udp service: no UDP yet"):
            await obey(traffic.udp_answers_each_client, tier, wire)


async def test_a_tier_that_cannot_run_here_is_told_from_one_that_declines():
    need = Requirement(need="a spare NIC", have="none", fix="plug one in", met=False)
    async with open_loopback_wire() as wire:
        with pytest.raises(CannotRun, match="need a spare NIC, have none"):
            await obey(traffic.half_close_passes_through, FakeTier(requirements=(need,)), wire)
