"""Prefixes are read as they are meant, and of the rules that fit a client the longest prefix counts."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.door import Door, NotAPrefix, Rule, Screen, read_prefix


def rule(prefix: str, door: Door = Door.BLOCK, service: str = "") -> Rule:
    return Rule(prefix=ipaddress.ip_network(prefix), door=door, service=service)


def refused(rules: list[Rule], client: str, service: str = "web") -> bool:
    return Screen(rules).refuses(ipaddress.ip_address(client), service)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("10.0.0.0/33", None),
        ("10.0.0.0/255.0.0.0", None),
        ("10.0.0.0/-1", None),
        ("fe80::%eth0/64", None),
        ("web", None),
        ("", None),
    ],
)
def test_what_is_no_prefix_is_told_the_one_that_was_meant(text: str, nearest: str | None) -> None:
    with pytest.raises(NotAPrefix) as caught:
        read_prefix(text)
    assert caught.value.nearest == nearest


@given(st.text(max_size=40))
def test_any_text_is_a_prefix_that_reads_back_or_none(text: str) -> None:
    try:
        prefix = read_prefix(text)
    except NotAPrefix:
        return
    assert read_prefix(str(prefix)) == prefix


def test_the_longest_prefix_counts() -> None:
    rules = [
        rule("198.51.0.0/16"),
        rule("198.51.100.0/24", Door.ALLOW),
        rule("198.51.100.7/32"),
        rule("2001:db8::/32"),
    ]
    assert [refused(rules, ip) for ip in ("198.51.1.1", "198.51.100.1", "198.51.100.7", "198.52.0.1")] == [
        True,
        False,
        True,
        False,
    ]
    assert [refused(rules, ip) for ip in ("2001:db8::1", "2001:db9::1")] == [True, False]


def test_everything_of_one_version_leaves_the_other_alone() -> None:
    assert [refused([rule("::/0")], ip) for ip in ("2001:db8::1", "192.0.2.1")] == [True, False]
    assert [refused([rule("0.0.0.0/0")], ip) for ip in ("2001:db8::1", "192.0.2.1")] == [False, True]


def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() -> None:
    assert refused([rule("198.51.100.0/24")], "::ffff:198.51.100.7")
    assert not refused([rule("::/0")], "::ffff:198.51.100.7")


def test_rules_of_a_service_are_its_own_and_let_nobody_in_that_is_blocked_for_all() -> None:
    rules = [
        rule("198.51.100.0/24"),
        rule("198.51.100.7/32", Door.ALLOW, "web"),
        rule("203.0.113.0/24", service="web"),
    ]
    assert refused(rules, "198.51.100.7")
    assert refused(rules, "203.0.113.1")
    assert not refused(rules, "203.0.113.1", "api")
