"""What a reload takes from a tier stays there until its last connection ends, or the service goes or comes back."""

from __future__ import annotations

from ipaddress import ip_address

import attrs

from marchproxy_core.engine.given_up import GivenUp
from marchproxy_core.model import Decision, Path, Plan, ServicePlan, ServiceStats, TierStats
from marchproxy_core.services import Backend, Endpoint, Http, Service

ENDPOINT = Endpoint(ip_address("127.0.0.1"), 80)
PLAIN = Service(name="web", listen=(ENDPOINT,), backends=(Backend(endpoint=ENDPOINT),))
HTTP = attrs.evolve(PLAIN, http=Http())


def plan(*chains):
    services = tuple(
        ServicePlan(
            service=service,
            path=Path.FAST,
            chain=tuple(chain.split()),
            decision=Decision(subject="", chosen=None, candidates=()),
        )
        for service, chain in chains
    )
    return Plan(tiers=(), services=services)


FAST, SLOW = plan((PLAIN, "kernel bytes all")), plan((HTTP, "all"))


def test_a_tier_that_lost_a_service_keeps_it_as_it_was_if_it_is_attached():
    given_up = GivenUp()
    given_up.follow(FAST, SLOW, {"kernel", "all"})
    assert given_up.by_tier == {"kernel": {"web": PLAIN}}


def test_a_service_that_comes_back_or_goes_away_is_not_given_up_any_more():
    for after in (FAST, plan()):
        given_up = GivenUp()
        given_up.follow(FAST, SLOW, {"kernel", "bytes"})
        given_up.follow(SLOW, after, {"kernel", "bytes"})
        assert given_up.by_tier == {}


def test_another_reload_keeps_the_service_as_the_tier_had_it():
    given_up = GivenUp()
    given_up.follow(FAST, SLOW, {"kernel"})
    given_up.follow(SLOW, SLOW, {"kernel", "all"})
    assert given_up.by_tier == {"kernel": {"web": PLAIN}}


def test_it_is_let_go_with_its_last_connection():
    given_up = GivenUp()
    given_up.follow(FAST, SLOW, {"kernel", "bytes"})
    busy, idle = (TierStats(services={"web": ServiceStats(connections_active=count)}) for count in (1, 0))
    given_up.let_go({"kernel": busy, "bytes": idle})
    assert list(given_up.by_tier) == ["kernel"]
    given_up.let_go({})
    assert given_up.by_tier == {}
