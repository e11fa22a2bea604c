"""The kit catches tiers that do not follow changes: for each law, tiers that are wrong in just that way."""

from __future__ import annotations

import attrs
import trio

from marchproxy_core.model import Role, ServiceTable
from marchproxy_core.table import Table
from marchproxy_core.testing import FakeTier
from marchproxy_core.testing.fake_relay import Relay, Served
from marchproxy_core.testing.laws import changes


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


def relaying(relay):
    return lambda: FakeTier(make_relay=relay)


BROKEN = {
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
}


def test_every_law_has_a_tier_that_breaks_it():
    assert set(BROKEN) == {*changes.LAWS}


async def test_a_tier_that_breaks_the_law_is_caught(assert_caught, law, make, said):
    await assert_caught(law, make(), said)
