"""What operators ask for goes over the configuration's rules, outlives a reload, and ends when its time is over."""

from __future__ import annotations

import ipaddress
import socket

import pytest
import structlog
import trio

from marchproxy_core.config import Config, Settings
from marchproxy_core.door import Door, DoorAction, DoorChange, Rule, RuleOrigin
from marchproxy_core.engine.door import FrontDoor
from marchproxy_core.engine.engine import Engine
from marchproxy_core.errors import DoorError
from marchproxy_core.listeners import ListenerSet
from marchproxy_core.plugins import Tiers
from marchproxy_core.services import Backend, Endpoint, Service

BAD = ipaddress.ip_network("198.51.100.0/24")
GOOD = ipaddress.ip_network("198.51.100.7/32")


def config(*, block=(BAD,), services=("web",), size=64):
    settings = Settings(door_block=block, ebpf_maps_size=size)
    return Config(
        settings=settings,
        services=tuple(
            Service(
                name=name,
                listen=(Endpoint.parse("192.0.2.1:80"),),
                backends=(Backend(endpoint=Endpoint.parse("10.0.0.2:80")),),
                block=(GOOD,),
            )
            for name in services
        ),
    )


def change(prefix, action=DoorAction.ADD, **more):
    return DoorChange(action=action, prefix=ipaddress.ip_network(prefix), **more)


def rules(door):
    return {
        (str(known.rule.prefix), known.rule.service): (known.rule.door, known.origin) for known in door.known
    }


def test_rules_are_those_of_settings_and_services():
    assert rules(FrontDoor(config())) == {
        ("198.51.100.0/24", ""): (Door.BLOCK, RuleOrigin.SETTINGS),
        ("198.51.100.7/32", "web"): (Door.BLOCK, RuleOrigin.SERVICE),
    }


def test_what_is_asked_for_goes_over_the_configuration_and_away_again():
    door = FrontDoor(config())
    door.change(change("198.51.100.0/24", door=Door.ALLOW), 0.0)
    assert rules(door)["198.51.100.0/24", ""] == (Door.ALLOW, RuleOrigin.COMMAND)
    door.change(change("198.51.100.0/24", DoorAction.REMOVE), 0.0)
    assert rules(door)["198.51.100.0/24", ""] == (Door.BLOCK, RuleOrigin.SETTINGS)


def test_a_reload_keeps_what_was_asked_for_even_of_a_service_that_comes_back():
    door = FrontDoor(config(services=("web", "api")))
    door.change(change("203.0.113.0/24", service="api"), 0.0)
    door.adopt(config(block=()))
    assert set(rules(door)) == {("198.51.100.7/32", "web"), ("203.0.113.0/24", "api")}


def test_the_rules_are_the_same_tuple_while_nothing_changes():
    door = FrontDoor(config())
    before = door.rules
    door.adopt(config())
    assert door.rules is before


@pytest.mark.parametrize(
    ("asked", "wants"),
    [
        (change("198.51.100.0/24", DoorAction.REMOVE), "the configuration's - fix: .*block add --allow"),
        (
            change("198.51.100.7/32", DoorAction.REMOVE, service="web"),
            "of service web is the configuration's",
        ),
        (change("203.0.113.0/24", DoorAction.REMOVE), "no rule for 203.0.113.0/24"),
        (change("198.51.100.0/25", DoorAction.REMOVE), "did you mean 198.51.100.0/24?"),
        (change("203.0.113.0/24", service="wep"), "did you mean web?"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(asked, wants):
    door = FrontDoor(config())
    before = door.known
    with pytest.raises(DoorError, match=wants):
        door.change(asked, 0.0)
    assert door.known == before


def test_a_backend_is_not_shut_off_by_mistake_but_may_be_where_it_is_let_in_or_one_service_asks():
    door = FrontDoor(config())
    with pytest.raises(
        DoorError, match=r"backend 10\.0\.0\.2:80 would be shut off.*block add --allow 10\.0\.0\.2"
    ):
        door.change(change("10.0.0.0/8"), 0.0)
    door.change(change("10.0.0.0/8", service="web"), 0.0)
    door.change(change("10.0.0.2/32", door=Door.ALLOW), 0.0)
    door.change(change("10.0.0.0/8"), 0.0)
    before = door.known
    for asked in (change("10.0.0.2/32"), change("10.0.0.2/32", DoorAction.REMOVE)):
        with pytest.raises(DoorError, match=r"backend 10\.0\.0\.2:80"):
            door.change(asked, 0.0)
    assert door.known == before


def test_a_backend_that_comes_by_reload_may_be_shut_off_and_rules_change_on():
    door = FrontDoor(config(services=()))
    door.change(change("10.0.0.0/8"), 0.0)
    assert door.shut_off() is None
    door.adopt(config())
    assert str(door.shut_off()) == "10.0.0.2:80"
    door.change(change("203.0.113.0/24"), 0.0)
    door.change(change("10.0.0.0/8", DoorAction.REMOVE), 0.0)
    assert door.shut_off() is None


def test_more_than_the_tables_hold_is_refused_and_a_change_of_a_rule_is_not_more():
    door = FrontDoor(config(size=8))
    for last in range(3):
        door.change(change(f"203.0.113.{last}/32"), 0.0)
    with pytest.raises(DoorError, match="EBPF_MAPS_SIZE"):
        door.change(change("203.0.113.3/32"), 0.0)
    door.change(change("203.0.113.0/32", door=Door.ALLOW), 0.0)


def test_a_rule_that_was_asked_for_again_does_not_end_with_the_first():
    door = FrontDoor(config())
    first = door.change(change("203.0.113.0/24", lasts_s=5), 10.0)
    assert first.ends_at == 15.0
    second = door.change(change("203.0.113.0/24"), 11.0)
    assert not door.lapse(first)
    assert door.lapse(second)
    assert ("203.0.113.0/24", "") not in rules(door)


async def test_tiers_hear_of_a_rule_at_once_and_of_its_end(echo_tier):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        here = Endpoint.parse(f"127.0.0.1:{sock.getsockname()[1]}")
    service = Service(name="echo", listen=(here,), backends=(Backend(endpoint=here),))
    tier = echo_tier("echo", 500)
    engine = Engine(
        config=Config(settings=Settings(), services=(service,)),
        tiers=Tiers.of({"echo": tier}),
        host=None,
        listeners=ListenerSet(1),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with trio.fail_after(10), structlog.testing.capture_logs() as lines:
            asked = DoorChange(action=DoorAction.ADD, prefix=BAD, lasts_s=0.2)
            engine.change_door(asked)
            seen = []
            async for table in tier.services.changes():
                seen.append(table.door)
                if not table.door:
                    break
        assert seen == [(Rule(prefix=BAD, door=Door.BLOCK),), ()]
        assert [line["event"] for line in lines] == ["door.rule_added", "door.rule_lapsed"]
        engine.drain()
        with pytest.raises(DoorError, match="draining"):
            engine.change_door(asked)
        nursery.cancel_scope.cancel()
