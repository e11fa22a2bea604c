"""Directives, dates, ranges, variants: what is read as what, and that nothing a peer writes is too much."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.cache.dates import format_date, parse_date
from marchproxy_application.cache.directives import LONGEST_S, parse_directives, policy_of, seconds
from marchproxy_application.cache.messages import make_field
from marchproxy_application.cache.ranges import Unsatisfiable, parse_range
from marchproxy_application.cache.vary import values_of, varies_by

NOW_S = 1_800_000_000.0
TEXT = st.binary(max_size=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", {}),
        (b" , ,", {}),
        (b"no-store", {b"no-store": None}),
        (b"Max-Age=5,PUBLIC", {b"max-age": b"5", b"public": None}),
        (b"max-age=1, max-age=2", {b"max-age": b"1"}),
        (b'private="a, b", max-age="7"', {b"private": b"a, b", b"max-age": b"7"}),
        (b'extension="max-age=3600", max-age=1', {b"extension": b"max-age=3600", b"max-age": b"1"}),
        (b'a="x\\"y, no-store", b', {b"a": b'x"y, no-store', b"b": None}),
        (b'a="never closed, no-store', {b"a": b'"never closed, no-store'}),
        (b"max-age =5", {b"max-age ": b"5"}),
        (b"=5", {}),
    ],
)
def test_directives(text, expected):
    assert dict(parse_directives(text)) == expected


@given(TEXT)
def test_any_directives_can_be_read(text):
    for name, value in parse_directives(text).items():
        assert name == name.lower()
        assert 0 <= seconds(value) <= LONGEST_S


@given(st.integers(min_value=0, max_value=10**30), st.integers(min_value=0, max_value=20))
def test_seconds_are_bounded_and_may_have_zeros_before_them(number, zeros):
    assert seconds(b"0" * zeros + b"%d" % number) == min(number, LONGEST_S)


@pytest.mark.parametrize("value", [None, b"", b"-1", b"1.0", b"'5'", b"5a", b" 5", b"+5", "٣".encode()])
def test_what_is_no_number_of_seconds_is_stale(value):
    assert seconds(value) == 0


@pytest.mark.parametrize(
    ("fields", "lifetime_s", "no_store"),
    [
        ([(b"cache-control", b"max-age=1")], 1, False),
        ([(b"cache-control", b"max-age=1, s-maxage=5")], 5, False),
        ([(b"cache-control", b"max-age=1"), (b"cdn-cache-control", b"max-age=9")], 9, False),
        ([(b"cache-control", b"no-store"), (b"cdn-cache-control", b"max-age=9")], 9, False),
        ([(b"cache-control", b"max-age=1"), (b"cdn-cache-control", b"")], 1, False),
        ([(b"cache-control", b"max-age=1"), (b"surrogate-control", b"max-age=9+30")], 9, False),
        ([(b"cache-control", b"max-age=1"), (b"surrogate-control", b"max-age=9;marchproxy")], 9, False),
        ([(b"cache-control", b"max-age=1"), (b"surrogate-control", b"max-age=9;other")], 1, False),
        ([(b"surrogate-control", b"no-store;other, max-age=9, max-age=3;marchproxy")], 3, False),
        ([(b"cache-control", b"max-age=1"), (b"surrogate-control", b"no-store")], None, True),
        ([(b"cache-control", b"max-age=1"), (b"surrogate-control", b'content="ESI/1.0"')], 1, False),
        ([(b"cdn-cache-control", b"max-age=2"), (b"surrogate-control", b"no-store")], 2, False),
    ],
)
def test_which_field_says_how_a_response_is_stored(fields, lifetime_s, no_store):
    policy = policy_of([make_field(*each) for each in fields])
    assert (policy.lifetime_s, policy.no_store) == (lifetime_s, no_store)


@given(st.floats(min_value=0, max_value=4e9))
def test_a_date_comes_back(when_s):
    text = format_date(when_s)
    assert parse_date(text, NOW_S) == int(when_s)
    assert email.utils.parsedate_to_datetime(text.decode()).timestamp() == int(when_s)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        (b"Sun Nov  6 08:49:37 1994", 784111777),
        (b"Thursday, 18-Aug-50 02:01:18 GMT", 2544400878),
        (b"Tue, 30 Jun 2015 23:59:60 GMT", 1435708799),
        (b"Sun, 31 Feb 2021 08:49:37 GMT", None),
        (b"Sun, 06 Foo 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 24:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 08:49:37 UTC", None),
        (b"Sun, 06 Nov 1994 08:49:37 GMT ", None),
        (b"Sun, 06 Nov 0000 08:49:37 GMT", None),
        (b"0", None),
        (None, None),
    ],
)
def test_dates(text, expected):
    assert parse_date(text, NOW_S) == expected


@given(TEXT)
def test_any_date_can_be_read(text):
    assert parse_date(text, NOW_S) is None or text[:1].isalpha()


@given(st.binary(max_size=12), st.integers(0, 14), st.integers(0, 14))
def test_a_range_is_the_part_that_it_names(body, first, last):
    text = b"bytes=%d-%d" % (first, last)
    if last < first:
        assert parse_range(text, len(body)) is None
    elif first >= len(body):
        with pytest.raises(Unsatisfiable):
            parse_range(text, len(body))
    else:
        assert body[slice(*parse_range(text, len(body)))] == body[first : last + 1]


@given(st.binary(max_size=12), st.integers(0, 14))
def test_open_ranges_and_those_from_the_end(body, count):
    if count < len(body):
        assert body[slice(*parse_range(b"bytes=%d-" % count, len(body)))] == body[count:]
    if count and body:
        assert body[slice(*parse_range(b"Bytes=-%d" % count, len(body)))] == body[-count:]
    else:
        with pytest.raises(Unsatisfiable):
            parse_range(b"bytes=-%d" % (count if not body else 0), len(body))


@pytest.mark.parametrize(
    "text", [b"bytes=0-1,3-4", b"bytes=-", b"bytes=a-b", b"lines=0-1", b"bytes=0-" + b"9" * 30]
)
def test_of_other_ranges_the_whole_is_sent(text):
    assert parse_range(text, 10) is None


@given(st.lists(st.sampled_from([b"*", b"Foo", b"bar", b",", b" ", b"\t"]), max_size=6))
def test_a_star_in_vary_is_found_wherever_it_is(parts):
    value = b",".join(parts)
    names = varies_by([make_field(b"Vary", value)])
    if b"*" in parts:
        assert names is None
    else:
        assert names == tuple(sorted({each.lower() for each in parts if each.isalpha()}))


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        (b"Foo", [b"1, 2"], [b"1", b"2"], True),
        (b"Foo", [b"1,2"], [b" 1 ,\t2 "], True),
        (b"Foo", [b"1"], [b"2"], False),
        (b"Foo", [b"1, 2"], [b"2, 1"], False),
        (b"Foo", [b""], [], False),
        (b"Foo", [b'"a,b"'], [b'"a, b"'], False),
        (b"Foo", [b"a"], [b"A"], False),
        (b"Accept-Language", [b"en, DE"], [b"EN,de"], True),
        (b"Cookie", [b"a=1,b"], [b"a=1, b"], False),
    ],
)
def test_which_values_are_the_same_variant(name, one, other, same):
    first, second = ([make_field(name, value) for value in values] for values in (one, other))
    for names in ((name.lower(),), (b"another", name.lower())):
        assert (values_of(names, first) == values_of(names, second)) is same
