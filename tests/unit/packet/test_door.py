"""Rules become prefixes in the kernel's table, which finds the longest; what was dropped is told now and then."""

from __future__ import annotations

import ipaddress
from contextlib import contextmanager
from ipaddress import ip_address as ip

import attrs
import pytest
import structlog

from marchproxy_core.bpf import items
from marchproxy_core.config import Settings
from marchproxy_core.door import Door, Rule
from marchproxy_core.packet import layout
from marchproxy_core.packet.door import DoorTable, door_fields
from marchproxy_core.packet.lately import DropLog
from marchproxy_core.packet.numbers import NoPlace
from marchproxy_core.packet.reasons import Hook, Reason
from marchproxy_core.packet.tables import Tables, word

SMALL = Settings(ebpf_conn_map_size=8, ebpf_service_map_size=3, ebpf_maps_size=8)
NUMBERS = {"web": 1, "api": 2}
BITS = layout.enumeration("mp_doors")
DOORS = {None: 0} | {door: layout.enumeration("mp_door")[door.name] for door in Door}


@pytest.fixture
def tables():
    opened = Tables.open(SMALL)
    yield opened
    opened.close()


def rule(prefix, door=Door.BLOCK, service=""):
    return Rule(prefix=ipaddress.ip_network(prefix), door=door, service=service)


def door_of(tables, client, number=0):
    """Look a client up as the engine does."""
    key = layout.PREFIX_KEY.pack(bits=160, service=number, address=layout.address_bytes(ip(client)))
    found = tables.prefixes.lookup(key)
    number = layout.PREFIX.unpack(found)["door"] if found else 0
    return next(door for door, value in DOORS.items() if value == number)


def bits(tables):
    return layout.SETTINGS.unpack(tables.settings.lookup(word(0)))["doors"]


@contextmanager
def told():
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.mark.root
class TestPrefixes:
    def test_the_longest_counts_and_each_version_is_its_own(self, tables):
        rules = (
            rule("198.51.0.0/16"),
            rule("198.51.100.0/24", Door.ALLOW),
            rule("198.51.100.7/32"),
            rule("::/0"),
            rule("2001:db8::/32", Door.ALLOW),
        )
        DoorTable(tables).follow(rules, NUMBERS, frozenset(), SMALL)
        assert [door_of(tables, each) for each in ("198.51.1.1", "198.51.100.1", "198.51.100.7")] == [
            Door.BLOCK,
            Door.ALLOW,
            Door.BLOCK,
        ]
        assert [door_of(tables, each) for each in ("2001:db8::1", "2001:db9::1", "192.0.2.1")] == [
            Door.ALLOW,
            Door.BLOCK,
            None,
        ]

    def test_all_of_ipv4_may_be_blocked_beside_all_of_ipv6(self, tables):
        for rules in ((rule("::/0"), rule("0.0.0.0/0")), (rule("0.0.0.0/0"), rule("::/0"))):
            DoorTable(tables).follow(rules, NUMBERS, frozenset(), SMALL)
            assert door_of(tables, "192.0.2.1") is door_of(tables, "2001:db8::1") is Door.BLOCK

    def test_a_service_has_rules_of_its_own_and_those_of_unknown_ones_wait(self, tables):
        table = DoorTable(tables)
        rules = (rule("198.51.100.0/24", service="web"), rule("203.0.113.0/24", service="later"))
        table.follow(rules, NUMBERS, frozenset(), SMALL)
        assert [door_of(tables, "198.51.100.1", number) for number in (0, 1, 2)] == [None, Door.BLOCK, None]
        assert bits(tables) == BITS["HAS_SERVICE_PREFIXES"]
        table.follow(rules, {**NUMBERS, "later": 3}, frozenset(), SMALL)
        assert door_of(tables, "203.0.113.9", 3) is Door.BLOCK
        table.follow(rules, {"later": 1}, frozenset(), SMALL)
        assert [door_of(tables, "198.51.100.1", 1), door_of(tables, "203.0.113.9", 1)] == [None, Door.BLOCK]

    def test_rules_come_change_and_go(self, tables):
        table = DoorTable(tables)
        steps = [(rule("198.51.100.0/24"),), (rule("198.51.100.0/24", Door.ALLOW),), ()]
        seen = []
        for rules in steps:
            table.follow(rules, NUMBERS, frozenset(), SMALL)
            seen.append((door_of(tables, "198.51.100.1"), bits(tables)))
        assert seen == [(Door.BLOCK, BITS["HAS_PREFIXES"]), (Door.ALLOW, BITS["HAS_PREFIXES"]), (None, 0)]
        assert list(items(tables.prefixes)) == []

    def test_the_next_daemon_drops_old_rules_but_those_of_services_that_may_come_back(self, tables):
        rules = (rule("198.51.100.0/24"), rule("203.0.113.0/24", service="web"))
        DoorTable(tables).follow(rules, NUMBERS, frozenset(), SMALL)
        table = DoorTable(tables)
        table.follow((), {}, frozenset({1}), SMALL)
        assert [door_of(tables, "198.51.100.1"), door_of(tables, "203.0.113.1", 1)] == [None, Door.BLOCK]
        assert bits(tables) == BITS["HAS_SERVICE_PREFIXES"]
        table.follow((), {}, frozenset(), SMALL)
        assert list(items(tables.prefixes)) == []

    def test_more_than_there_is_room_for_changes_nothing_and_names_the_setting(self, tables):
        table = DoorTable(tables)
        table.follow((rule("192.0.2.0/24"),), NUMBERS, frozenset(), SMALL)
        many = tuple(rule(f"198.51.100.{at}/32") for at in range(9))
        with pytest.raises(NoPlace, match="EBPF_MAPS_SIZE"):
            table.follow(many, NUMBERS, frozenset(), SMALL)
        assert [door_of(tables, "192.0.2.1"), door_of(tables, "198.51.100.1")] == [Door.BLOCK, None]


@pytest.mark.parametrize(
    ("settings", "interval", "burst"),
    [
        (Settings(), 0, 0),
        (Settings(door_source_rate=1000), 1_000_000, 999_000_000),
        (Settings(door_source_rate=1000, door_source_burst=1), 1_000_000, 0),
        (Settings(door_source_rate=0.5), 2_000_000_000, 0),
    ],
)
def test_a_rate_is_an_interval_and_a_burst_is_time(settings, interval, burst):
    fields = door_fields(settings, frozenset())
    assert (fields["pace_interval"], fields["pace_burst"]) == (interval, burst)


def test_what_else_is_asked():
    settings = attrs.evolve(Settings(), door_max_opening=7, door_drop_malformed=True)
    fields = door_fields(settings, {False, True})
    assert (fields["max_opening"], fields["doors"]) == (7, sum(BITS.values()))


def sample(reason=Reason.BLOCKED, source="198.51.100.7", service=0):
    return layout.SAMPLE.pack(
        source=layout.address_bytes(ip(source)),
        destination=layout.address_bytes(ip("192.0.2.1")),
        source_port=int.from_bytes((5000).to_bytes(2, "little"), "big"),
        destination_port=int.from_bytes((80).to_bytes(2, "little"), "big"),
        protocol=6,
        hook=Hook.TC,
        reason=reason,
        service=service,
    )


@pytest.mark.root
class TestDropLog:
    @pytest.fixture
    def drop_log(self, tables):
        return DropLog(tables, {1: "web"}.get)

    def test_nothing_dropped_is_nothing_told(self, drop_log):
        with told() as lines:
            drop_log.look(lambda: pytest.fail("counted for nothing"), 0.0)
        assert lines == []

    def test_an_example_says_who_wanted_what(self, tables, drop_log):
        tables.samples.push(sample(service=1))
        with told() as lines:
            drop_log.look(lambda: {"blocked": 5}, 0.0)
        (line,) = lines
        assert (line["event"], line["dropped"]) == ("packets.dropped_lately", {"blocked": 5})
        assert line["examples"] == [
            {
                "reason": "blocked",
                "hook": "tc",
                "protocol": "tcp",
                "source": "198.51.100.7",
                "source_port": 5000,
                "destination": "192.0.2.1",
                "destination_port": 80,
                "service": "web",
            }
        ]

    def test_a_flood_is_a_line_in_ten_seconds_and_another_reason_one_more(self, tables, drop_log):
        total = {"blocked": 0}
        with told() as lines:
            for second in range(21):
                total["blocked"] += 100
                tables.samples.push(sample())
                if second == 5:
                    total["pace"] = 1
                    tables.samples.push(sample(Reason.PACE))
                drop_log.look(lambda: dict(total), float(second))
        assert [line["dropped"] for line in lines] == [
            {"blocked": 100},
            {"blocked": 500, "pace": 1},
            {"blocked": 1000},
        ]

    def test_three_sources_are_shown_and_one_of_each_reason(self, tables, drop_log):
        for at in range(6):
            tables.samples.push(sample(source=f"198.51.100.{at % 5}"))
        tables.samples.push(sample(Reason.PACE))
        with told() as lines:
            drop_log.look(dict, 0.0)
        shown = [(one["reason"], one["source"]) for one in lines[0]["examples"]]
        assert shown == [("blocked", "198.51.100.0"), ("blocked", "198.51.100.1"), ("pace", "198.51.100.7")]

    def test_counts_that_begin_anew_are_not_told_as_less_than_nothing(self, tables, drop_log):
        with told() as lines:
            for second, count in ((0, 50), (20, 3)):
                tables.samples.push(sample())
                drop_log.look(lambda count=count: {"blocked": count}, float(second))
        assert [line["dropped"] for line in lines] == [{"blocked": 50}, {"blocked": 3}]
