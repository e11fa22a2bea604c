"""The kit catches tiers that break a law: for each law, tiers that are wrong in just that way."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio

from marchproxy_core.errors import TierFault
from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.model import Requirement, Role, ServiceTable, TierStats
from marchproxy_core.services import Protocol
from marchproxy_core.table import Table
from marchproxy_core.testing import LAWS, FakeTier, NotApplicable, obey, open_loopback_wire
from marchproxy_core.testing.fake_relay import Relay, Served
from marchproxy_core.testing.laws import changes, ending, hooks, patience, traffic
from marchproxy_core.testing.subject import CannotRun

left_open = []  # what broken tiers leak, closed after each test


@pytest.fixture(autouse=True)
def clean_up_after_broken_tiers(monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_S", 1.0)
    for module in (hooks, ending):
        check = module.assert_nothing_leaked
        monkeypatch.setattr(
            module, "assert_nothing_leaked", lambda before, check=check: check(before, deadline_s=0.3)
        )
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


class StartsTooEarly(Relay):
    """Says that it started, and serves nothing until the second table."""

    async def run(self, services, *, task_status):
        task_status.started()
        later = services.changes()
        await anext(later)
        await anext(later)
        await super().run(services, task_status=trio.TASK_STATUS_IGNORED)


class Pumps(Relay):
    """A relay of its own making, to be wrong in one way."""

    async def _relay(self, counters, client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pump, client, server, lambda n: self.count(counters, "bytes_in", n))
            nursery.start_soon(self.pump, server, client, lambda n: self.count(counters, "bytes_out", n))

    def count(self, counters, field, n):
        setattr(counters, field, getattr(counters, field) + n)

    async def pump(self, source, sink, count):
        try:
            while data := await source.recv(65536):
                data = self.changed(data)
                await trio.SocketStream(sink).send_all(data)
                count(len(data))
        except OSError:
            pass
        except trio.BrokenResourceError:
            pass
        self.at_end(source, sink)

    def changed(self, data):
        return data

    def at_end(self, source, sink):
        if sink.fileno() >= 0:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


class ClosesBothAtHalfClose(Pumps):
    def at_end(self, source, sink):
        source.close()
        sink.close()


class TurnsBits(Pumps):
    turned = False

    def changed(self, data):
        if len(data) == 65536 and not self.turned:
            self.turned = True
            return bytes([data[0] ^ 1]) + data[1:]
        return data


class LosesBytes(Pumps):
    def changed(self, data):
        return data[:-1] if len(data) == 65536 else data


class HoardsWithoutBound(Pumps):
    async def pump(self, source, sink, count):
        send, receive = trio.open_memory_channel(float("inf"))

        async def write():
            async for data in receive:
                await trio.SocketStream(sink).send_all(data)
                count(len(data))
            self.at_end(source, sink)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            with send:
                while data := await source.recv(1 << 20):
                    send.send_nowait(data)


class CountsTwice(Pumps):
    def count(self, counters, field, n):
        super().count(counters, field, 2 * n)


class CountsBackwards(Pumps):
    def count(self, counters, field, n):
        setattr(counters, field, n)


class NeverCountsTheEnd(Relay):
    async def _connection(self, served, client):
        try:
            await super()._connection(served, client)
        finally:
            served.counters.active += 1


class CountsNoDatagrams(Relay):
    async def _receive(self, served, listening, scope, nursery):
        served.counters = type(served.counters)()
        await super()._receive(served, listening, scope, nursery)


class OneFlowForAll(Relay):
    """Answers whoever asked last, from one flow."""

    async def _receive(self, served, listening, scope, nursery):
        with scope, listening:
            flow = await self._new_flow(served, 0)
            with flow:
                while True:
                    data, client = await listening.recvfrom(65536)
                    await flow.send(data)
                    await listening.sendto(await flow.recv(65536), client)


class SeesOneTable(Relay):
    async def run(self, services, *, task_status):
        await super().run(Table(services.current), task_status=task_status)


class AcceptsOnStandby(Relay):
    def _listen(self, served, nursery):
        if served.assignment.role is Role.STANDBY:
            return
        super()._listen(served, nursery)


class TurnsAwayOnStandby(AcceptsOnStandby):
    async def _connection(self, served, client):
        if served.assignment.role is Role.STANDBY:
            client.close()
            return
        await super()._connection(served, client)


class CutsOnEveryChange(Relay):
    def _apply(self, table, nursery):
        super()._apply(ServiceTable(), nursery)
        super()._apply(table, nursery)


class CutsWhatDrains(Relay):
    def _apply(self, table, nursery):
        going = {n: a for n, a in table.assignments.items() if a.role is not Role.DRAINING}
        super()._apply(ServiceTable(going), nursery)


class AcceptsWhileDraining(Relay):
    def _listen(self, served, nursery):
        if served.assignment.role is not Role.DRAINING:
            super()._listen(served, nursery)

    async def _connection(self, served, client):
        if served.assignment.role is Role.DRAINING:
            served.assignment = self.before
        self.before = served.assignment
        await super()._connection(served, client)


class IgnoresHealth(Relay):
    def _apply(self, table, nursery):
        blind = {
            name: attrs.evolve(a, backends=tuple(attrs.evolve(v, health="up") for v in a.backends))
            for name, a in table.assignments.items()
        }
        super()._apply(ServiceTable(blind), nursery)


class RefusesWhenNoneIsUp(Relay):
    async def _connection(self, served, client):
        if any(view.takes_new for view in served.assignment.backends):
            await super()._connection(served, client)
        else:
            client.close()


class HangsWhenRefused(Relay):
    async def _connection(self, served, client):
        try:
            await super()._connection(served, client.dup())
            await trio.sleep_forever()
        finally:
            client.close()


class TriesOneBackendOnly(Relay):
    async def _connected(self, served):
        views = served.assignment.backends
        one = attrs.evolve(served.assignment, backends=views[next(served.turns) % len(views) :][:1])
        return await super()._connected(Served(one, served.counters))


class TellsTheCoreNothing(Relay):
    async def _connected(self, served):
        self.observe = lambda seen: None
        return await super()._connected(served)


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
    traffic.tcp_flows_as_soon_as_it_started: ((relaying(StartsTooEarly), "gave up .*: a client is served"),),
    traffic.half_close_passes_through: ((relaying(ClosesBothAtHalfClose), "after the client's end"),),
    traffic.reset_passes_through: ((relaying(Pumps), "the client reset, the server saw"),),
    traffic.bulk_arrives_exactly_in_both_directions: (
        (relaying(TurnsBits), "not the same ones"),
        (relaying(LosesBytes), r"got \d+ back"),
    ),
    traffic.a_reader_that_stalls_stalls_the_sender: ((relaying(HoardsWithoutBound), "no bound"),),
    traffic.udp_answers_each_client: ((relaying(OneFlowForAll), "5 clients came to the backend as [12]"),),
    traffic.tcp_is_counted_exactly: (
        (relaying(CountsTwice), "counted .*, want"),
        (relaying(CountsBackwards), "went back"),
    ),
    traffic.an_open_connection_is_counted_as_open: ((relaying(NeverCountsTheEnd), "0 active connections"),),
    traffic.udp_is_counted_exactly: ((relaying(CountsNoDatagrams), "counted .*, want"),),
    changes.services_come_and_go: (
        (relaying(SeesOneTable), "that added is served"),
        (relaying(CutsOnEveryChange), "an established connection was lost"),
    ),
    changes.on_standby_clients_wait_and_are_served_once_chosen: (
        (relaying(AcceptsOnStandby), "that on standby no client is accepted"),
        (relaying(TurnsAwayOnStandby), "a client was turned away"),
        (relaying(CutsOnEveryChange), "an established connection was lost"),
    ),
    changes.a_draining_service_keeps_what_is_established: (
        (relaying(CutsWhatDrains), "an established connection was lost"),
        (relaying(AcceptsWhileDraining), "takes no client"),
    ),
    changes.a_draining_udp_service_keeps_its_flows: ((relaying(CutsWhatDrains), "no answer to a datagram"),),
    changes.the_health_of_backends_is_followed: (
        (relaying(IgnoresHealth), "all new clients go to backend b"),
        (relaying(RefusesWhenNoneIsUp), "that web is served"),
    ),
    changes.a_changed_service_keeps_what_is_established: (
        (relaying(SeesOneTable), "all new clients go to backend b"),
        (relaying(CutsOnEveryChange), "an established connection was lost"),
    ),
    changes.a_backend_that_refuses_costs_no_client: (
        (relaying(TriesOneBackendOnly), "one of two backends refused, and a client got b''"),
        (relaying(TellsTheCoreNothing), "that the core is told of backend"),
    ),
    changes.a_refused_client_learns_of_it: ((relaying(HangsWhenRefused), "left hanging"),),
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
    assert set(BROKEN) == set(LAWS)


@pytest.mark.parametrize(
    ("law", "make", "said"),
    [
        pytest.param(law, make, said, id=f"{law.__name__}-{number}")
        for law, rows in BROKEN.items()
        for number, (make, said) in enumerate(rows)
    ],
)
async def test_a_tier_that_breaks_the_law_is_caught(law, make, said):
    async with open_loopback_wire() as wire:
        with pytest.raises((AssertionError, TierFault, RuntimeError), match=said):
            await obey(law, make(), wire)


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
