"""The kit catches tiers that flush too little, or too much: for each law, tiers that are wrong in just that way."""

from __future__ import annotations

import attrs

from marchproxy_core.model import ServiceTable
from marchproxy_core.testing import FakeTier
from marchproxy_core.testing.fake_relay import Relay, Served
from marchproxy_core.testing.laws import flushing


def with_backends(table, change):
    return ServiceTable(
        {
            name: attrs.evolve(
                one,
                backends=tuple(attrs.evolve(view, backend=change(view.backend)) for view in one.backends),
            )
            for name, one in table.assignments.items()
        }
    )


class OnlyDrains(Relay):
    def _apply(self, table, nursery):
        super()._apply(with_backends(table, lambda one: attrs.evolve(one, flush=False)), nursery)


class OnlyEnds(Relay):
    """Ends what a flushed backend has, and gives it new clients."""

    def _apply(self, table, nursery):
        super()._apply(table, nursery)
        ending = with_backends(table, lambda one: attrs.evolve(one, flush=False, weight=1))
        super()._apply(ending, nursery)


class EndsInOrder(Relay):
    def _apply(self, table, nursery):
        for name, served in self._served.items():
            if any(view.backend.flush for view in table.assignments[name].backends):
                for scope, sockets in served.open.items():
                    if sockets[1].getpeername()[1] == served.assignment.backends[0].backend.endpoint.port:
                        scope.cancel()
        super()._apply(with_backends(table, lambda one: attrs.evolve(one, flush=False)), nursery)


class FlushesAll(Relay):
    def _apply(self, table, nursery):
        for name, served in self._served.items():
            assignment = table.assignments[name]
            if any(view.backend.flush for view in assignment.backends):
                every = with_backends(
                    ServiceTable({name: assignment}), lambda one: attrs.evolve(one, weight=0, flush=True)
                ).assignments[name]
                one = Served(every, served.counters, open=served.open, flows=served.flows)
                one.flush()
        super()._apply(table, nursery)


class StaysAway(Relay):
    """Never gives a backend anything again that was flushed."""

    def _apply(self, table, nursery):
        gone = self.__dict__.setdefault("gone", set())
        for one in table.assignments.values():
            gone |= {view.backend.endpoint for view in one.backends if view.backend.flush}
        super()._apply(
            with_backends(
                table, lambda one: attrs.evolve(one, weight=0, flush=True) if one.endpoint in gone else one
            ),
            nursery,
        )


def relaying(relay):
    return lambda: FakeTier(make_relay=relay)


BROKEN = {
    flushing.a_flushed_backend_loses_its_connections: (
        (relaying(OnlyDrains), "that the client of a flushed backend's connection is reset"),
        (relaying(OnlyEnds), "that all new clients go to backend b"),
        (relaying(EndsInOrder), "saw an orderly end"),
        (relaying(FlushesAll), "a connection to a backend that is not flushed was lost"),
        (relaying(StaysAway), "none met backend a"),
    ),
    flushing.a_flushed_backends_udp_flows_move: (
        (relaying(OnlyDrains), "that a flow leaves the backend that is flushed"),
        (relaying(FlushesAll), "a flow was moved whose backend is not flushed"),
    ),
}


def test_every_law_has_a_tier_that_breaks_it():
    assert set(BROKEN) == {*flushing.LAWS}


async def test_a_tier_that_breaks_the_law_is_caught(assert_caught, law, make, said):
    await assert_caught(law, make(), said)
