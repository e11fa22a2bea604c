"""A hook takes the services whose backends are behind interfaces that its program can be on; others take the rest."""

from __future__ import annotations

import ipaddress

import attrs
import pytest

from marchproxy_core.model import Assignment, BackendView, Role
from marchproxy_core.packet.arrangement import Fitness, arrange
from marchproxy_core.packet.network import NetworkFacts, Way
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.services import Backend, Endpoint, Service

FRONT, BACK, SIDE = 2, 3, 4
NETWORK = NetworkFacts(
    addresses={ipaddress.ip_address("192.0.2.1"): FRONT, ipaddress.ip_address("203.0.113.9"): SIDE},
    ways={
        ipaddress.ip_address("198.51.100.1"): Way(
            interface=BACK, source=ipaddress.ip_address("198.51.100.9")
        ),
        ipaddress.ip_address("203.0.113.1"): Way(interface=SIDE, source=ipaddress.ip_address("203.0.113.9")),
    },
    names={FRONT: "front", BACK: "back", SIDE: "side"},
)
NOT_SIDE = "no XDP in this driver"


def assigned(name, *backends, tier=None):
    found = tuple(Backend(endpoint=Endpoint.parse(f"{ip}:80")) for ip in backends)
    service = Service(name=name, listen=(Endpoint.parse("192.0.2.1:80"),), backends=found, tier=tier)
    return Assignment(
        service=service, role=Role.CHOSEN, backends=tuple(BackendView(backend=one) for one in found)
    )


BACK_ONLY = assigned("back", "198.51.100.1")
BOTH = assigned("both", "198.51.100.1", "203.0.113.1")


def arranged(fitness, *assignments, hooks=(Hook.XDP, Hook.TC)):
    wanted = {one.service.name: one for one in assignments}
    return arrange(dict.fromkeys(hooks, wanted), NETWORK, {Hook.XDP: fitness})


def test_a_service_is_taken_by_the_hooks_that_its_answers_meet():
    found = arranged(Fitness(refused={SIDE: NOT_SIDE}), BACK_ONLY, BOTH)
    hooks = {half.service.name: half.hooks for half in found.halves}
    assert hooks == {"back": Hook.XDP.bit | Hook.TC.bit, "both": Hook.TC.bit}
    (left,) = found.left_out
    assert (left.service, left.hook) == ("both", Hook.XDP)
    assert NOT_SIDE in left.reason


def test_the_program_is_on_no_interface_that_is_not_fit():
    found = arranged(Fitness(refused={SIDE: NOT_SIDE}), BACK_ONLY, BOTH)
    assert found.interfaces(Hook.XDP) == {FRONT, BACK}
    assert found.interfaces(Hook.TC) == {FRONT, BACK, SIDE}


def test_clients_may_come_in_by_an_interface_without_the_program_if_some_come_in_by_another():
    listen = (*BACK_ONLY.service.listen, Endpoint.parse("203.0.113.9:80"))
    two_ways_in = attrs.evolve(BACK_ONLY, service=attrs.evolve(BACK_ONLY.service, listen=listen))
    found = arranged(Fitness(refused={FRONT: NOT_SIDE}), two_ways_in)
    assert found.halves[0].hooks == Hook.XDP.bit | Hook.TC.bit
    assert found.interfaces(Hook.XDP) == {BACK, SIDE}

    found = arranged(Fitness(refused={FRONT: NOT_SIDE, SIDE: NOT_SIDE}), two_ways_in)
    assert found.halves[0].hooks == Hook.TC.bit
    assert found.interfaces(Hook.XDP) == frozenset()
    (left,) = found.left_out
    assert left.hook is Hook.XDP
    assert left.reason == f"its clients come in by front: {NOT_SIDE}; its clients come in by side: {NOT_SIDE}"


def test_where_a_lower_tier_does_better_only_pinned_services_are_taken():
    pinned = attrs.evolve(BOTH, service=attrs.evolve(BOTH.service, tier="xdp"))
    for one, taken in ((BOTH, False), (pinned, True)):
        found = arranged(Fitness(avoided={SIDE: "slower"}), one, hooks=[Hook.XDP])
        assert bool(found.halves) is taken
        assert (SIDE in found.interfaces(Hook.XDP)) is taken


@pytest.mark.parametrize("role", [Role.STANDBY, Role.DRAINING])
def test_what_takes_nothing_new_is_not_left_out_either(role):
    found = arranged(Fitness(refused={SIDE: NOT_SIDE}), attrs.evolve(BOTH, role=role))
    assert (found.halves, found.left_out) == ((), ())
