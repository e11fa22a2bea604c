"""Each broken plugin becomes one fault that says what and where; the whole ones work."""

from __future__ import annotations

import types

import pytest

from marchproxy_core.errors import TierFault
from marchproxy_core.hookspecs import hookimpl
from marchproxy_core.plugins import HOOKS, Tiers


class Whole:
    @hookimpl
    def probe(self, host, settings):
        return None

    @hookimpl
    def classify(self, service, report):
        raise ZeroDivisionError("in classify")

    @hookimpl
    def attach(self, context):
        return "no context manager"

    @hookimpl
    def forward(self, attachment, services):
        return 7

    @hookimpl
    def stats(self, attachment):
        raise SystemExit(3)


class Misspelt(Whole):
    @hookimpl
    def prob(self, host):
        return None


class AsyncHook(Whole):
    @hookimpl
    async def probe(self, host, settings):
        return None


class WrongArgument(Whole):
    @hookimpl
    def probe(self, hots):
        return None


class Wrapper(Whole):
    @hookimpl(wrapper=True)
    def probe(self, host, settings):
        return (yield)


class Renamed(Whole):
    probe = None

    @hookimpl(specname="probe")
    def look(self, host, settings):
        return None


class Incomplete:
    @hookimpl
    def probe(self, host, settings):
        return None


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        (Misspelt(), "prob"),
        (AsyncHook(), "'probe' is async"),
        (WrongArgument(), "hots"),
        (Wrapper(), "wrapper"),
        (Renamed(), "specname"),
        (Incomplete(), "lacks the hook classify, attach, forward, stats"),
        (types.ModuleType("empty"), "lacks the hook probe"),
    ],
)
def test_a_broken_plugin_is_one_row_and_the_rest_runs(plugin, said):
    tiers = Tiers.of({"bad": plugin, "good": Whole()})
    assert tiers.names == ("good",)
    bad = next(row for row in tiers.rows if row.name == "bad")
    assert bad.fault is not None
    assert bad.fault.stage == "register"
    assert said in str(bad.fault)
    with pytest.raises(TierFault, match="in classify"):
        tiers.classify("good", None, None)


@pytest.mark.parametrize(
    ("hook", "arguments", "said"),
    [
        ("probe", {"host": None, "settings": None}, "returned nothing, want ProbeReport"),
        ("classify", {"service": None, "report": None}, "ZeroDivisionError: in classify"),
        ("attach", {"context": None}, "returned str, want an async context manager"),
        ("forward", {"attachment": None, "services": None}, "want an async callable"),
        ("stats", {"attachment": None}, "SystemExit: 3"),
    ],
)
def test_what_a_hook_does_wrong_is_said_with_tier_and_hook(hook, arguments, said):
    tiers = Tiers.of({"good": Whole()})
    with pytest.raises(TierFault) as caught:
        getattr(tiers, hook)("good", **arguments)
    assert (caught.value.tier, caught.value.stage) == ("good", hook)
    assert said in str(caught.value)
    assert hook in HOOKS
