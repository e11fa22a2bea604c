"""The kit catches tiers that say that they keep the front door, and do not, or keep out too many."""

from __future__ import annotations

import ipaddress

import attrs
import pytest

from marchproxy_core.door import Door, Rule
from marchproxy_core.model import ServiceTable
from marchproxy_core.testing import FakeTier, NotApplicable, obey, open_loopback_wire
from marchproxy_core.testing.fake_relay import Relay
from marchproxy_core.testing.laws import doors


class SeesOtherRules(Relay):
    def _apply(self, table, nursery):
        rules = tuple(one for rule in table.door for one in self.seen_as(rule))
        super()._apply(ServiceTable(table.assignments, table.settings, rules), nursery)

    def seen_as(self, rule):
        raise NotImplementedError


class SeesNoRule(SeesOtherRules):
    def seen_as(self, rule):
        return ()


class SeesNoAllowance(SeesOtherRules):
    def seen_as(self, rule):
        return (rule,) if rule.door is Door.BLOCK else ()


class TakesServicesForAll(SeesOtherRules):
    def seen_as(self, rule):
        return (attrs.evolve(rule, service=""),)


class ForgetsNoRule(Relay):
    def _apply(self, table, nursery):
        self.known = {**getattr(self, "known", {}), **{rule.key: rule for rule in table.door}}
        super()._apply(ServiceTable(table.assignments, table.settings, tuple(self.known.values())), nursery)


class KeepsUdpOut(SeesOtherRules):
    def seen_as(self, rule):
        everyone = ipaddress.ip_network("0.0.0.0/0")
        return (Rule(prefix=everyone, door=Door.BLOCK),) if rule.door is Door.BLOCK else ()

    def _is_kept_out(self, served, client):
        self.kept = getattr(self, "kept", False) or super()._is_kept_out(served, client)
        return self.kept


class CountsNothing(Relay):
    def _is_kept_out(self, served, client):
        kept = super()._is_kept_out(served, client)
        served.counters.drops.clear()
        return kept


def relaying(relay):
    return lambda: FakeTier(make_relay=relay)


BROKEN = {
    doors.blocked_clients_stay_out: (
        (relaying(SeesNoRule), "is kept out"),
        (relaying(SeesNoAllowance), "is served"),
        (relaying(ForgetsNoRule), "is served"),
    ),
    doors.a_service_keeps_its_own_clients_out: (
        (relaying(SeesNoRule), "is kept out"),
        (relaying(TakesServicesForAll), "is served"),
        (relaying(CountsNothing), "a count of what was blocked"),
    ),
    doors.blocked_senders_of_datagrams_stay_out: (
        (relaying(SeesNoRule), "is kept out"),
        (relaying(KeepsUdpOut), "is served"),
    ),
}


def test_every_law_has_a_tier_that_breaks_it():
    assert set(BROKEN) == {*doors.LAWS}


async def test_a_tier_that_breaks_the_law_is_caught(assert_caught, law, make, said):
    await assert_caught(law, make(), said)


@pytest.mark.parametrize("law", doors.LAWS)
async def test_a_tier_that_does_not_say_so_is_not_held_to_it(law):
    async with open_loopback_wire() as wire:
        with pytest.raises(NotApplicable, match="front door"):
            await obey(law, FakeTier(keeps_door=False), wire)
