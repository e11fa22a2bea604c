"""The bucket's two laws over several workers, and which reason a limit gives."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy_core.backends import LeakyBucket, Limit, Limits, global_limit, service_limit
from marchproxy_core.config import Settings
from marchproxy_core.drops import DropReason
from marchproxy_core.services import Backend, Endpoint, Service

# Times in 64ths of a second: sums of them are exact, so the laws are tested without tolerances.
TICK_S = 1 / 64
rates = st.sampled_from([0.5, 1.0, 4.0, 64.0, 1000.0])
bursts = st.integers(1, 40).map(float)


@attrs.define
class Workers:
    """Several buckets that see one total, as worker processes do through shared counters."""

    buckets: list[LeakyBucket]
    total: int = 0
    admitted_at: list[float] = attrs.field(factory=list)

    @classmethod
    def make(cls, count, rate, burst):
        workers = cls([LeakyBucket(rate, burst) for _ in range(count)])
        workers.look(0.0)
        return workers

    def look(self, now_s):
        for bucket in self.buckets:
            bucket.look(now_s, self.total)

    def offer(self, worker, now_s):
        if not self.buckets[worker].admits(now_s, self.total):
            return False
        self.total += 1
        self.admitted_at.append(now_s)
        return True


offers = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 0, 0, 1, 2, 7, 64, 1000])), max_size=150
)


@given(rates, bursts, offers)
@settings(deadline=None)
def test_no_window_has_more_than_burst_and_rate_allow(rate, burst, offers):
    workers = Workers.make(4, rate, burst)
    ticks = 0
    for worker, pause in offers:
        ticks += pause
        workers.offer(worker, ticks * TICK_S)
    times = workers.admitted_at
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - begin)


@given(rates, st.integers(1, 30), st.integers(1, 8), offers)
@settings(deadline=None)
def test_traffic_below_the_rate_is_never_refused(rate, ideal_burst, gap, offers):
    """Offered is only what a single exact bucket passes, less what the heartbeats' gap may hide."""
    workers = Workers.make(4, rate, ideal_burst + rate * gap * TICK_S)
    level, ticks = 0.0, 0
    for worker, pause in offers:
        for _ in range(pause):
            ticks += 1
            if ticks % gap == 0:
                workers.look(ticks * TICK_S)
        level = max(level - rate * pause * TICK_S, 0.0)
        if level + 1 <= ideal_burst:
            level += 1
            assert workers.offer(worker, ticks * TICK_S)


def test_one_worker_gets_the_burst_then_the_rate():
    workers = Workers.make(1, 10.0, 5.0)
    assert [workers.offer(0, 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not workers.offer(0, 0.09)
    assert workers.offer(0, 0.11)
    assert not workers.offer(0, 0.11)
    assert sum(workers.offer(0, 0.11 + at / 100) for at in range(1000)) == pytest.approx(100, abs=1)


def test_a_worker_sees_what_the_others_admitted():
    workers = Workers.make(2, 1.0, 3.0)
    assert [workers.offer(0, 0.0) for _ in range(3)] == [True] * 3
    assert not workers.offer(1, 0.0)
    assert workers.offer(1, 1.0)
    assert not workers.offer(0, 1.0)


def test_a_new_worker_starts_empty_whatever_came_before():
    bucket = LeakyBucket(1.0, 2.0)
    assert bucket.admits(1000.0, 1_000_000)


def test_a_total_that_shrinks_or_a_clock_that_stands_gives_nothing_away():
    bucket = LeakyBucket(1.0, 1.0)
    bucket.look(10.0, 5)
    assert not bucket.admits(10.0, 6)
    assert not bucket.admits(10.0, 0)
    assert not bucket.admits(5.0, 0)
    assert not bucket.admits(10.5, 0)
    assert bucket.admits(11.0, 0)


def test_the_default_burst_is_a_second_and_one():
    workers = Workers.make(1, 100.0, None)
    assert sum(workers.offer(0, 0.0) for _ in range(200)) == 101


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, 0.5)])
def test_a_bucket_that_never_opens_is_refused(rate, burst):
    with pytest.raises(ValueError, match="want a rate above 0"):
        LeakyBucket(rate, burst)


@attrs.define
class Counts:
    active: int = 0
    opened: int = 0
    reads: int = 0

    def read_active(self):
        self.reads += 1
        return self.active

    def read_opened(self):
        self.reads += 1
        return self.opened


def limits(service, everything, **bounds):
    def bound(name):
        return bounds.get(name)

    return Limits(
        service=Limit.for_service(
            active=service.read_active,
            opened=service.read_opened,
            max_connections=bound("max_connections"),
            rate=bound("rate"),
        ),
        everything=Limit.for_all(
            active=everything.read_active,
            opened=everything.read_opened,
            max_connections=bound("global_max_connections"),
            rate=bound("global_rate"),
        ),
    )


def test_without_limits_nothing_is_refused_nor_read():
    service, everything = Counts(active=10**9), Counts(active=10**9)
    assert limits(service, everything).refuses(0.0) is None
    assert (service.reads, everything.reads) == (0, 0)


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"max_connections": 5}, DropReason.MAX_CONNECTIONS),
        ({"global_max_connections": 5}, DropReason.GLOBAL_MAX_CONNECTIONS),
        ({"max_connections": 5, "global_max_connections": 5}, DropReason.MAX_CONNECTIONS),
        ({"max_connections": 6, "global_max_connections": 6}, None),
        ({"max_connections": 0}, DropReason.MAX_CONNECTIONS),
    ],
)
def test_counts(bounds, reason):
    assert limits(Counts(active=5), Counts(active=5), **bounds).refuses(0.0) is reason


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"rate": 1.0}, DropReason.CONNECTION_RATE),
        ({"global_rate": 1.0}, DropReason.GLOBAL_CONNECTION_RATE),
        ({"rate": 1.0, "global_rate": 1.0}, DropReason.CONNECTION_RATE),
        ({"rate": 10.0, "global_rate": 10.0}, None),
    ],
)
def test_rates(bounds, reason):
    service, everything = Counts(), Counts()
    checked = limits(service, everything, **bounds)
    for _ in range(2):
        assert checked.refuses(0.0) is None
        service.opened += 1
        everything.opened += 1
    assert checked.refuses(0.0) is reason
    assert checked.refuses(1.0) is None


def test_services_share_the_global_bucket():
    everything = Counts()
    shared = Limit.for_all(
        active=everything.read_active, opened=everything.read_opened, max_connections=None, rate=2.0
    )
    both = [
        attrs.evolve(limits(Counts(), everything), everything=shared),
        attrs.evolve(limits(Counts(), everything), everything=shared),
    ]
    admitted = 0
    for at in range(10):
        if both[at % 2].refuses(0.0) is None:
            admitted += 1
            everything.opened += 1
    assert admitted == 3
    shared.look(0.5)
    assert both[0].refuses(0.5) is None


def web(**bounds):
    endpoint = Endpoint.parse("127.0.0.1:80")
    return Service(name="web", listen=(endpoint,), backends=(Backend(endpoint=endpoint),), **bounds)


@pytest.mark.parametrize(
    ("own", "variables", "count", "rate"),
    [
        ({}, {}, None, None),
        ({}, {"service_max_connections": 7, "service_connection_rate": 9.0}, 7, 9.0),
        (
            {"max_connections": 1, "connection_rate": 2.0},
            {"service_max_connections": 7, "service_connection_rate": 9.0},
            1,
            2.0,
        ),
        ({"max_connections": 1}, {"service_connection_rate": 9.0}, 1, 9.0),
        ({}, {"max_connections": 7, "global_connection_rate": 9.0}, None, None),
    ],
)
def test_a_services_own_limit_goes_before_the_settings(own, variables, count, rate):
    counts = Counts()
    chosen = attrs.evolve(Settings(), **variables)
    limit = service_limit(web(**own), chosen, active=counts.read_active, opened=counts.read_opened)
    assert (limit.max_connections, limit.bucket.rate if limit.bucket else None) == (count, rate)
    assert (limit.full, limit.fast) == (DropReason.MAX_CONNECTIONS, DropReason.CONNECTION_RATE)


@pytest.mark.parametrize(
    ("variables", "count", "rate"),
    [
        ({}, None, None),
        ({"max_connections": 5}, 5, None),
        ({"global_max_connections": 6, "global_connection_rate": 3.0}, 6, 3.0),
        ({"max_connections": 5, "global_max_connections": 6}, 5, None),
        ({"service_max_connections": 5, "service_connection_rate": 3.0}, None, None),
    ],
)
def test_of_two_global_counts_the_smaller_is_the_limit(variables, count, rate):
    counts = Counts()
    chosen = attrs.evolve(Settings(), **variables)
    limit = global_limit(chosen, active=counts.read_active, opened=counts.read_opened)
    assert (limit.max_connections, limit.bucket.rate if limit.bucket else None) == (count, rate)
    assert (limit.full, limit.fast) == (DropReason.GLOBAL_MAX_CONNECTIONS, DropReason.GLOBAL_CONNECTION_RATE)
