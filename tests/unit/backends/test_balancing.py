"""Shares, retries and fall-backs of every way to balance."""

from __future__ import annotations

import ipaddress
import itertools
import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy_core.backends import balancing, make_balancer
from marchproxy_core.model import BackendView, Health
from marchproxy_core.services import Backend, Balance, Endpoint

ALL = list(Balance)


def views(*weights, out: dict[int, Health] | None = None):
    return [
        BackendView(
            backend=Backend(endpoint=Endpoint(ipaddress.IPv4Address("10.0.0.1"), 1000 + at), weight=weight),
            health=(out or {}).get(at, Health.UNCHECKED),
        )
        for at, weight in enumerate(weights)
    ]


def idle(index):
    return 0


def picks(balancer, count, active=idle, key=None, tried=()):
    return [balancer.pick(active, key, tried) for _ in range(count)]


small_weights = st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any)
any_weights = st.lists(st.integers(0, 65535), min_size=1, max_size=8).filter(any)


@given(small_weights, st.integers(0, 40))
@settings(deadline=None)
def test_round_robin_shares_match_the_weights_exactly_over_a_cycle(weights, start):
    cycle = sum(weights) // math.gcd(*weights)
    balancer = make_balancer(Balance.ROUND_ROBIN, views(*weights), start=start)
    divisor = math.gcd(*weights)
    for _ in range(2):
        served = Counter(picks(balancer, cycle))
        assert [served[at] for at in range(len(weights))] == [weight // divisor for weight in weights]


@given(small_weights)
@settings(deadline=None)
def test_both_round_robins_take_the_same_turns(weights):
    divisor = math.gcd(*weights)
    reduced = [weight // divisor for weight in weights]
    smooth = balancing.SmoothRoundRobin(balancing.SmoothTurns(reduced), 0)
    cyclic = balancing.make_round_robin(weights)
    assert isinstance(cyclic, balancing.CyclicRoundRobin)
    assert picks(cyclic, 3 * sum(reduced)) == picks(smooth, 3 * sum(reduced))


@given(any_weights, st.integers(1, 300))
@settings(deadline=None)
def test_round_robin_is_never_far_from_its_shares(weights, count):
    served = Counter(picks(balancing.make_round_robin(weights), count))
    for at, weight in enumerate(weights):
        assert abs(served[at] - count * weight / sum(weights)) <= len(weights)


def test_round_robin_spreads_the_heavy_one():
    assert picks(balancing.make_round_robin([5, 1, 1]), 7) == [0, 0, 1, 0, 2, 0, 0]


def test_weights_that_reduce_have_a_short_cycle_and_others_a_bounded_one():
    assert isinstance(balancing.make_round_robin([65534, 32767]), balancing.CyclicRoundRobin)
    assert isinstance(balancing.make_round_robin([9] * 5000), balancing.CyclicRoundRobin)
    odd = balancing.make_round_robin([65535, 65521])
    assert isinstance(odd, balancing.SmoothRoundRobin)
    assert Counter(picks(odd, 65535 + 65521)) == {0: 65535, 1: 65521}


def test_workers_that_start_apart_begin_at_different_backends():
    first = [
        make_balancer(balance, views(1, 1, 1), start=start).pick(idle, None)
        for balance in (Balance.ROUND_ROBIN, Balance.LEAST_CONNECTIONS)
        for start in range(4)
    ]
    assert first == [0, 1, 2, 0] * 2


@pytest.mark.parametrize("balance", ALL)
@given(data=st.data())
@settings(deadline=None)
def test_a_retry_goes_through_every_usable_backend_once(balance, data):
    weights = data.draw(small_weights)
    balancer = make_balancer(balance, views(*weights), random=Random(data.draw(st.integers())))
    loads = data.draw(st.lists(st.integers(0, 5), min_size=len(weights), max_size=len(weights)))
    key = data.draw(st.none() | st.binary(min_size=4, max_size=4))
    tried: list[int] = []
    while (index := balancer.pick(loads.__getitem__, key, tried)) is not None:
        assert index not in tried
        tried.append(index)
    assert sorted(tried) == [at for at, weight in enumerate(weights) if weight]


@pytest.mark.parametrize("balance", ALL)
def test_only_backends_that_take_new_connections_are_picked(balance):
    out = {0: Health.DOWN, 2: Health.EJECTED}
    balancer = make_balancer(balance, views(5, 1, 5, 1, 0, out=out))
    served = {balancer.pick(idle, str(at).encode()) for at in range(200)}
    assert served == {1, 3}


@pytest.mark.parametrize("balance", ALL)
def test_when_none_is_well_all_with_a_weight_are_used(balance):
    out = {0: Health.DOWN, 1: Health.EJECTED}
    balancer = make_balancer(balance, views(1, 1, 0, out=out))
    assert {balancer.pick(idle, str(at).encode()) for at in range(200)} == {0, 1}


@pytest.mark.parametrize("balance", ALL)
@pytest.mark.parametrize("weights", [(), (0,), (0, 0)])
def test_without_a_weight_there_is_no_backend(balance, weights):
    balancer = make_balancer(balance, views(*weights))
    assert picks(balancer, 3, key=b"key") == [None] * 3
    assert picks(balancer, 3) == [None] * 3


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 100)), min_size=1, max_size=8),
    st.integers(1, 20),
)
@settings(deadline=None)
def test_least_connections_takes_the_least_loaded_for_its_weight(backends, count):
    weights, loads = zip(*backends, strict=True)
    balancer = make_balancer(Balance.LEAST_CONNECTIONS, views(*weights))
    least = min(load / weight for weight, load in backends)
    for index in picks(balancer, count, active=loads.__getitem__):
        assert loads[index] / weights[index] == least


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
@settings(deadline=None)
def test_least_connections_fills_up_by_weight(weights):
    balancer = make_balancer(Balance.LEAST_CONNECTIONS, views(*weights))
    loads = [0] * len(weights)
    for _ in range(10 * sum(weights)):
        index = balancer.pick(loads.__getitem__, None)
        assert index is not None
        loads[index] += 1
    assert loads == [10 * weight for weight in weights]


def test_least_connections_of_equals_takes_turns_by_weight():
    balancer = make_balancer(Balance.LEAST_CONNECTIONS, views(3, 1))
    assert Counter(picks(balancer, 400)) == {0: 300, 1: 100}


def test_random_of_two_takes_the_less_loaded_of_those_drawn():
    loads = [50, 40, 30, 20, 10]
    balancer = make_balancer(Balance.RANDOM, views(1, 1, 1, 1, 1), random=Random(7))
    served = Counter(picks(balancer, 20_000, active=loads.__getitem__))
    assert served[0] == 0  # whatever it is drawn with has less
    for at in range(1, 5):  # with the k-th fewest of 5: chance 2 * at / (5 * 4)
        assert served[at] / 20_000 == pytest.approx(2 * at / 20, abs=0.015)


def test_random_of_two_draws_by_weight():
    balancer = make_balancer(Balance.RANDOM, views(6, 3, 1), random=Random(7))
    served = Counter(picks(balancer, 30_000))
    for at, share in enumerate((0.6, 0.3, 0.1)):
        assert served[at] / 30_000 == pytest.approx(share, abs=0.015)


def test_random_of_two_compares_load_for_the_weight():
    balancer = make_balancer(Balance.RANDOM, views(10, 1), random=Random(7))
    assert set(picks(balancer, 100, active=[15, 2].__getitem__)) == {0}


def test_random_of_two_keeps_loads_even():
    loads = [0] * 10
    balancer = make_balancer(Balance.RANDOM, views(*[1] * 10), random=Random(7))
    for _ in range(10_000):
        index = balancer.pick(loads.__getitem__, None)
        assert index is not None
        loads[index] += 1
    assert max(loads) - min(loads) <= 10


@given(st.binary(max_size=20))
@settings(deadline=None)
def test_maglev_keeps_a_client_at_its_backend(key):
    one, two = (make_balancer(Balance.MAGLEV, views(1, 1, 1)) for _ in range(2))
    assert len(set(picks(one, 5, key=key) + picks(two, 5, key=key))) == 1


def test_maglev_moves_the_clients_of_a_backend_that_goes_and_hardly_any_other():
    keys = [ipaddress.IPv4Address(0x0A000000 + at).packed for at in range(10_000)]
    whole = make_balancer(Balance.MAGLEV, views(1, 1, 1, 1))
    part = make_balancer(Balance.MAGLEV, views(1, 1, 1, 1, out={2: Health.DOWN}))
    before = [whole.pick(idle, key) for key in keys]
    after = [part.pick(idle, key) for key in keys]
    assert 2 not in after
    moved = sum(b != a for b, a in zip(before, after, strict=True) if b != 2)
    assert moved <= 0.03 * len(keys)
    back = [make_balancer(Balance.MAGLEV, views(1, 1, 1, 1)).pick(idle, key) for key in keys[:100]]
    assert back == before[:100]


def test_maglev_without_a_key_is_round_robin():
    balancer = make_balancer(Balance.MAGLEV, views(2, 1), start=0)
    assert Counter(picks(balancer, 300)) == {0: 200, 1: 100}


def test_maglev_spreads_the_retries_of_one_backend_over_all_others():
    balancer = make_balancer(Balance.MAGLEV, views(1, 1, 1, 1))
    keys = (at.to_bytes(4, "big") for at in itertools.count())
    of_one = itertools.islice((key for key in keys if balancer.pick(idle, key) == 0), 3000)
    served = Counter(balancer.pick(idle, key, (0,)) for key in of_one)
    assert served.keys() == {1, 2, 3}
    assert min(served.values()) > 700
