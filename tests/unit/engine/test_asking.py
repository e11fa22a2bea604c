"""A tier that raises or hangs when asked is one broken candidate; the others are heard."""

from __future__ import annotations

import threading

import pytest
import trio

from marchproxy_core.config import Settings
from marchproxy_core.engine import asking
from marchproxy_core.engine.calling import THREADS_PER_TIER
from marchproxy_core.errors import TierFault
from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.planner import make_plan
from marchproxy_core.plugins import Tiers
from marchproxy_core.services import Backend, Endpoint, Service

HERE = Endpoint.parse("127.0.0.1:80")
WEB = Service(name="web", listen=(HERE,), backends=(Backend(endpoint=HERE),))


@pytest.mark.parametrize(("hook", "how"), [("probe", "raises"), ("probe", "hangs"), ("classify", "hangs")])
async def test_a_tier_that_fails_when_asked_is_passed_over_with_the_reason(
    failing_tier, monkeypatch, hook, how
):
    monkeypatch.setattr(asking, "ASK_DEADLINE_S", 0.2)
    let_go = threading.Event()

    def misbehave(*args):
        if how == "raises":
            raise ValueError("no mood")
        let_go.wait(30)

    class Ill(failing_tier):
        if hook == "probe":

            @hookimpl
            def probe(self, host, settings):
                misbehave()

        else:

            @hookimpl
            def classify(self, service, report):
                misbehave()

    tiers = Tiers.of({"ill": Ill(), "well": failing_tier()})
    try:
        facts = await asking.ask_tiers(tiers, None, Settings(), (WEB,))
    finally:
        let_go.set()
    plan = make_plan(facts, (WEB,), Settings())
    assert plan.services[0].chain == ("well",)
    reason = next(c.reason for c in plan.services[0].decision.candidates if c.name == "ill")
    assert f"failed at {hook}" in reason
    assert ("no mood" if how == "raises" else "hung") in reason


async def test_a_single_probe_says_its_fault(failing_tier):
    class Ill(failing_tier):
        @hookimpl
        def probe(self, host, settings):
            raise SystemExit("bye")

    with pytest.raises(TierFault, match="SystemExit: bye"):
        await asking.probe_tier(Tiers.of({"ill": Ill()}), "ill", None, Settings())


async def test_a_tier_that_hangs_keeps_no_thread_from_the_others(failing_tier, monkeypatch):
    monkeypatch.setattr(asking, "ASK_DEADLINE_S", 0.2)
    trio.to_thread.current_default_thread_limiter().total_tokens = 1
    let_go = threading.Event()

    class Hung(failing_tier):
        @hookimpl
        def probe(self, host, settings):
            let_go.wait(30)

    tiers = Tiers.of({"hung": Hung(), "well": failing_tier()})
    try:
        for _ in range(THREADS_PER_TIER + 1):
            facts = {one.name: one for one in await asking.ask_tiers(tiers, None, Settings(), (WEB,))}
            assert "hung: no answer" in str(facts["hung"].fault)
            assert facts["well"].fault is None
        with trio.fail_after(5):
            assert await trio.to_thread.run_sync(lambda: "served") == "served"
    finally:
        let_go.set()
