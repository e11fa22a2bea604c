"""A name keeps its place for as long as it is there, and places are used again as late as possible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.packet.numbers import NoPlace, Numbers


def test_a_full_array_is_refused_by_the_name_of_its_setting():
    numbers = Numbers(1, 3, "EBPF_SERVICE_MAP_SIZE")
    assert [numbers.of("a"), numbers.of("b"), numbers.of("a")] == [1, 2, 1]
    with pytest.raises(NoPlace, match="all 2 places are taken - fix: raise EBPF_SERVICE_MAP_SIZE"):
        numbers.of("c")


def test_a_place_is_not_used_again_at_once():
    numbers = Numbers(0, 4, "X")
    assert numbers.of("a") == 0
    numbers.keep(())
    assert [numbers.of("b"), numbers.of("c"), numbers.of("d"), numbers.of("e")] == [1, 2, 3, 0]


@pytest.mark.parametrize("place", [0, 5])
def test_a_place_that_does_not_exist_is_not_adopted(place):
    numbers = Numbers(1, 5, "X")
    numbers.adopt("a", place)
    assert numbers.known("a") is None


@given(st.lists(st.tuples(st.sampled_from(["of", "adopt", "keep"]), st.integers(0, 7), st.integers(0, 9))))
def test_no_place_ever_has_two_names(steps):
    numbers = Numbers(0, 8, "X")
    for what, name, place in steps:
        if what == "of":
            assert numbers.of(name) == numbers.known(name)
        elif what == "adopt":
            numbers.adopt(name, place)
        else:
            numbers.keep(range(name))
        known = {each: numbers.known(each) for each in range(8) if numbers.known(each) is not None}
        assert len(set(known.values())) == len(known)
        assert all(numbers.name(at) == each for each, at in known.items())
