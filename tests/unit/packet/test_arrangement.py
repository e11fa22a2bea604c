"""What the tables are to hold follows from services and network alone; what is left out has a reason."""

from __future__ import annotations

from ipaddress import ip_address as ip

import attrs
import pytest

from marchproxy_core.model import Assignment, BackendView, Health, Role
from marchproxy_core.packet.arrangement import arrange, destinations
from marchproxy_core.packet.network import NetworkFacts, Way, longest_outside
from marchproxy_core.packet.reasons import Hook
from marchproxy_core.services import Backend, Balance, Endpoint, Protocol, Service

FRONT, BACK = 2, 3
NETWORK = NetworkFacts(
    addresses={
        ip("192.0.2.1"): FRONT,
        ip("192.0.2.9"): FRONT,
        ip("2001:db8::1"): FRONT,
        ip("10.0.0.1"): BACK,
    },
    ways={
        ip("10.0.0.2"): Way(interface=BACK, source=ip("10.0.0.1")),
        ip("10.0.0.3"): Way(interface=BACK, source=ip("10.0.0.1")),
        ip("2001:db8:1::2"): Way(interface=BACK, source=ip("2001:db8:1::1")),
        ip("192.0.2.9"): Way(interface=1, source=ip("192.0.2.9"), is_local=True),
        ip("10.9.9.9"): Way(interface=0, source=None),
        ip("10.8.0.2"): Way(interface=7, source=ip("10.8.0.1")),
    },
    names={FRONT: "front", BACK: "back"},
)


def service(*listen, backends=("10.0.0.2:80",), **more):
    return Service(
        name="web",
        listen=tuple(map(Endpoint.parse, listen)),
        backends=tuple(Backend(endpoint=Endpoint.parse(one)) for one in backends),
        **more,
    )


def assigned(one, *, role=Role.CHOSEN, down=()):
    views = tuple(
        BackendView(backend=each, health=Health.DOWN if str(each.endpoint) in down else Health.UP)
        for each in one.backends
    )
    return Assignment(service=one, role=role, backends=views)


def arranged(one, **more):
    return arrange({Hook.TC: {one.name: assigned(one, **more)}}, NETWORK)


def test_a_service_has_its_addresses_its_slots_and_the_interfaces_of_both_sides():
    (half,) = arranged(service("192.0.2.1:8080")).halves
    assert half.keys == ((ip("192.0.2.1"), 8080, Protocol.TCP),)
    assert half.hooks == Hook.TC.bit
    assert half.interfaces == {FRONT, BACK}
    assert (half.picks.endpoints, half.picks.weights) == ((Endpoint.parse("10.0.0.2:80"),), (1,))


def test_a_wildcard_stands_for_every_address_of_the_host():
    (half,) = arranged(service("0.0.0.0:80")).halves
    assert {str(address) for address, _, _ in half.keys} == {"192.0.2.1", "192.0.2.9", "10.0.0.1"}


def test_each_version_of_ip_is_taken_or_left_by_itself():
    arrangement = arranged(service("0.0.0.0:80", "[::]:80"))
    assert [half.version for half in arrangement.halves] == [4]
    ((left),) = arrangement.left_out
    assert (left.version, left.reason) == (6, "backend 10.0.0.2:80 is of another version of IP")


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("192.0.2.9:80", "is on this host"),
        ("10.9.9.9:80", "no route to backend 10.9.9.9:80"),
        ("10.8.0.2:80", "is no Ethernet, or is down"),
        ("[2001:db8:1::2]:80", "of another version"),
    ],
)
def test_one_backend_that_cannot_be_reached_this_way_leaves_the_service_to_lower_tiers(backend, reason):
    arrangement = arranged(service("192.0.2.1:80", backends=("10.0.0.2:80", backend)))
    assert arrangement.halves == ()
    assert reason in arrangement.left_out[0].reason


def test_a_loopback_address_among_others_is_left_out():
    (half,) = arranged(service("127.0.0.1:80", "192.0.2.1:80")).halves
    assert [str(address) for address, _, _ in half.keys] == ["192.0.2.1"]


def test_a_backend_that_is_down_or_drained_gets_no_share_but_keeps_its_table():
    two = service("192.0.2.1:80", backends=("10.0.0.2:80", "10.0.0.3:80"), balance=Balance.MAGLEV)
    both = arranged(two).halves[0].picks
    down = arranged(two, down=("10.0.0.3:80",)).halves[0].picks
    assert (both.weights, down.weights) == ((1, 1), (1, 0))
    assert both.size == down.size
    drained = attrs.evolve(two, backends=(two.backends[0], attrs.evolve(two.backends[1], weight=0)))
    assert arranged(drained).halves[0].picks.weights == (1, 0)


def test_only_roles_that_take_new_flows_are_arranged_and_hooks_are_joined():
    one = service("192.0.2.1:80")
    chosen, armed, standby, draining = (assigned(one, role=role) for role in Role)
    both = arrange({Hook.XDP: {"web": chosen}, Hook.TC: {"web": armed}}, NETWORK)
    assert [half.hooks for half in both.halves] == [Hook.XDP.bit | Hook.TC.bit]
    assert arrange({Hook.XDP: {"web": standby}, Hook.TC: {"web": draining}}, NETWORK).halves == ()


def test_destinations_are_the_addresses_of_all_backends():
    assert destinations([assigned(service("192.0.2.1:80", backends=("10.0.0.2:80", "10.0.0.2:81")))]) == {
        ip("10.0.0.2")
    }


@pytest.mark.parametrize(
    ("first", "last", "longest"),
    [
        (32768, 60999, (1024, 32767)),
        (1024, 40000, (40001, 65535)),
        (1024, 65535, (1024, 65535)),
        (2000, 3000, (3001, 65535)),
    ],
)
def test_ports_come_from_outside_of_what_the_host_uses_itself(first, last, longest):
    assert longest_outside(first, last) == longest
