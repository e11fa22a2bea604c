"""The planner's choices, and the reasons that it gives for them."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.config import Enable, Settings
from marchproxy_core.errors import StartRefused, TierFault
from marchproxy_core.model import Carries, Path, ProbeReport, Requirement, Role, TierState, Verdict
from marchproxy_core.planner import TierFacts, check_start, make_plan, roles
from marchproxy_core.services import Backend, Endpoint, Service

WEB = Service(
    name="web",
    listen=(Endpoint.parse("0.0.0.0:80"),),
    backends=(Backend(endpoint=Endpoint.parse("10.0.0.1:80")),),
)
YES = Verdict(accept=True, path=Path.FAST, reason="fast path")
NO = Verdict(accept=False, path=Path.SLOW, reason="tls_enabled")


def tier(name, order, *, met=True, loses="", verdict=YES, **more):
    need = Requirement(need="a kernel", have="a kernel" if met else "none", fix="boot one", met=met)
    report = ProbeReport(order=order, carries=Carries.CONNECTIONS, requirements=(need,), loses=loses)
    return TierFacts(name=name, report=report, verdicts={"web": verdict}, **more)


def settings(**enable):
    return attrs.evolve(Settings(), enable={name: Enable(value) for name, value in enable.items()})


def reasons(plan):
    return {candidate.name: candidate.reason for candidate in plan.services[0].decision.candidates}


def state(plan, name):
    return next(row.state for row in plan.tiers if row.name == name)


def test_the_highest_usable_tier_is_chosen_and_the_rest_stay_armed_in_order():
    plan = make_plan((tier("low", 700), tier("high", 100), tier("middle", 300)), (WEB,), Settings())
    assert plan.services[0].chain == ("high", "middle", "low")
    assert [row.state for row in plan.tiers] == [TierState.CHOSEN, TierState.ARMED, TierState.ARMED]


@pytest.mark.parametrize(
    ("unfit", "found", "said"),
    [
        (tier("high", 100, met=False), TierState.REFUSED, "need a kernel, have none"),
        (tier("high", 100, met=None), TierState.UNKNOWN, "need a kernel"),
        (tier("high", 100, loses="TSO"), TierState.DEGRADED, "TSO; skipped"),
        (tier("high", 100, down="running: it raised"), TierState.FAULTED, "it raised"),
        (tier("high", 100, verdict=NO), TierState.IDLE, "declined: tls_enabled"),
        (TierFacts(name="high", fault=TierFault("high", "import", "OSError")), TierState.BROKEN, "OSError"),
    ],
)
def test_an_unfit_tier_is_passed_over_with_the_reason(unfit, found, said):
    plan = make_plan((unfit, tier("low", 700)), (WEB,), Settings())
    assert plan.services[0].chain == ("low",)
    assert said in reasons(plan)["high"]
    assert state(plan, "high") is found


def test_settings_switch_off_force_and_reorder():
    tiers = (tier("a", 100, loses="TSO"), tier("b", 200), tier("c", 300))
    assert make_plan(tiers, (WEB,), settings(a="true", b="false")).services[0].chain == ("a", "c")
    ordered = attrs.evolve(Settings(), tier_order=("c", "b"))
    assert make_plan(tiers, (WEB,), ordered).services[0].chain == ("c", "b")


def test_a_pinned_service_has_that_tier_only_even_degraded():
    pinned = attrs.evolve(WEB, tier="a")
    plan = make_plan((tier("a", 100, loses="TSO"), tier("b", 200)), (pinned,), Settings())
    assert plan.services[0].chain == ("a",)
    absent = make_plan((tier("b", 200),), (pinned,), Settings())
    assert "not installed" in reasons(absent)["a"]


def test_start_is_refused_with_every_reason_at_once():
    chosen = settings(high="true", gone="true")
    plan = make_plan((tier("high", 100, met=False), tier("low", 700, verdict=NO)), (WEB,), chosen)
    with pytest.raises(StartRefused) as caught:
        check_start(plan, chosen)
    lines = str(caught.value).splitlines()
    assert [line for line in lines if "'high' is required but refused" in line and "boot one" in line]
    assert [line for line in lines if "'gone' is required but not installed" in line]
    assert [line for line in lines if "service 'web' has no tier" in line and "tls_enabled" in line]


def test_a_runnable_plan_starts():
    plan = make_plan((tier("low", 700),), (WEB,), settings(low="true"))
    check_start(plan, settings(low="true"))
    assert plan.services[0].chosen == "low"


@given(st.lists(st.sampled_from(Carries), min_size=1, max_size=7))
def test_exactly_one_tier_accepts_and_packet_tiers_stay_armed(kinds):
    chain = tuple(f"t{place}" for place in range(len(kinds)))
    given_roles = roles(chain, dict(zip(chain, kinds, strict=True)))
    accepting = [t for t, kind in zip(chain, kinds, strict=True) if kind is Carries.CONNECTIONS]
    assert [t for t in accepting if given_roles[t].takes_new] == accepting[:1]
    assert all(given_roles[t].takes_new for t in chain if t not in accepting)
    assert given_roles[chain[0]] is Role.CHOSEN
