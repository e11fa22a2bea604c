"""The board: each transition by example, then its laws under any order of events."""

from __future__ import annotations

import ipaddress
import itertools

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from marchproxy_core.backends import CheckResult, EjectionPolicy, HealthBoard
from marchproxy_core.model import BackendObservation, BackendView, Health
from marchproxy_core.services import Backend, Endpoint, HealthCheck, Service

ENDPOINTS = [Endpoint(ipaddress.IPv4Address("10.0.0.1"), port) for port in range(1, 8)]
A, B, C, D, *_ = ENDPOINTS
CHECK = HealthCheck(rise=2, fall=3)
POLICY = EjectionPolicy(failures=3, pause_s=5.0, max_pause_s=30.0)


def service(*endpoints, check=None, name="web", weights=None):
    weights = weights or {}
    backends = tuple(Backend(endpoint=each, weight=weights.get(each, 1)) for each in endpoints)
    listen = (Endpoint(ipaddress.IPv4Address("127.0.0.1"), 80),)
    return Service(name=name, listen=listen, backends=backends, health_check=check)


class Rig:
    """A board with a clock of its own."""

    def __init__(self, *services, policy=POLICY):
        self.wall = 1000.0
        self.now = 0.0
        self.board = HealthBoard(services, now=0.0, policy=policy, wall_clock=lambda: self.wall + self.now)
        self.told = []
        self.board.listen(self.told.append)

    def check(self, backend, *results, reason="status 503", name="web"):
        for ok in results:
            result = CheckResult(ok=ok, reason="" if ok else reason, latency_s=0.25)
            self.board.record_check(name, backend, result, now=self.now)

    def connect(self, backend, *results, error="connection refused", name="web"):
        for ok in results:
            observed = BackendObservation(service=name, backend=backend, ok=ok, error="" if ok else error)
            self.board.observe(observed, self.now)

    def at(self, now):
        self.now = now
        self.board.advance(now)

    def health(self, name="web"):
        return [view.health for view in self.board.views(name)]

    def row(self, backend, name="web"):
        return next(row for row in self.board.rows() if (row.service, row.backend) == (name, backend))


def test_a_flushed_backend_is_checked_on_and_comes_back_as_it_is():
    rig = Rig(service(A, B, check=CHECK))
    flushed = attrs.evolve(
        service(A, B, check=CHECK), backends=(Backend(endpoint=A, weight=0, flush=True), Backend(endpoint=B))
    )
    rig.board.configure([flushed], now=1.0)
    row = rig.row(A)
    assert (row.weight, row.flush, row.health, row.reason) == (0, True, Health.DRAINING, "it is flushed")
    rig.check(A, False)
    assert rig.health()[0] is Health.DRAINING
    rig.board.configure([service(A, B, check=CHECK)], now=2.0)
    assert (rig.health()[0], rig.row(A).weight, rig.row(A).flush) == (Health.DOWN, 1, False)


def test_a_new_board_knows_nothing_and_uses_everything():
    rig = Rig(service(A, B, weights={B: 0}), service(A, name="api", check=CHECK))
    assert rig.health() == [Health.UNCHECKED, Health.DRAINING]
    assert rig.health("api") == [Health.UNCHECKED]
    assert [row.reason for row in rig.board.rows()] == ["no health check", "weight is 0", "not checked yet"]
    assert rig.board.next_deadline() is None
    with pytest.raises(KeyError):
        rig.board.views("nobody")


@pytest.mark.parametrize(
    ("results", "health", "reason"),
    [
        ([True], Health.UP, "the first check passed"),
        ([False], Health.DOWN, "the first check failed: status 503"),
        ([True, False, False], Health.UP, "the first check passed"),
        ([True, False, False, False], Health.DOWN, "3 checks in a row failed: status 503"),
        ([True, False, False, True, False, False], Health.UP, "the first check passed"),
        ([False, True], Health.DOWN, "the first check failed: status 503"),
        ([False, True, True], Health.UP, "2 checks in a row passed"),
        ([False, True, False, True], Health.DOWN, "the first check failed: status 503"),
    ],
)
def test_rise_and_fall(results, health, reason):
    rig = Rig(service(A, check=CHECK))
    rig.check(A, *results)
    assert rig.health() == [health]
    assert rig.row(A).reason == reason


def test_a_row_has_what_happened_and_when():
    rig = Rig(service(A, check=CHECK))
    rig.now = 10.0
    rig.check(A, True)
    rig.now = 20.0
    rig.check(A, False, False, reason="timed out after 1 s")
    row = rig.row(A)
    assert (row.health, row.since) == (Health.UP, 1010.0)
    assert (row.last_check, row.last_check_ok, row.last_check_latency_s) == (1020.0, False, 0.25)
    assert (row.last_error, row.failed_checks, row.failures_total) == ("timed out after 1 s", 2, 2)


def test_failed_connections_in_a_row_eject_and_a_good_one_forgives():
    rig = Rig(service(A, B))
    rig.connect(A, False, False, True, False, False)
    assert rig.health() == [Health.UNCHECKED, Health.UNCHECKED]
    rig.connect(A, False)
    assert rig.health() == [Health.EJECTED, Health.UNCHECKED]
    assert rig.row(A).reason == "3 connections in a row failed: connection refused; out for 5 s"
    assert rig.board.next_deadline() == 5.0
    rig.at(4.99)
    assert rig.health() == [Health.EJECTED, Health.UNCHECKED]
    rig.at(5.0)
    assert rig.health() == [Health.UNCHECKED, Health.UNCHECKED]
    assert rig.row(A).reason == "readmitted: its pause is over"
    assert [(change.was, change.now) for change in rig.told] == [
        (Health.UNCHECKED, Health.EJECTED),
        (Health.EJECTED, Health.UNCHECKED),
    ]


def test_pauses_grow_to_the_cap_and_start_over_after_a_good_time():
    rig = Rig(service(A, B))
    pauses = []
    rig.connect(A, False, False)
    for _ in range(5):
        rig.connect(A, False)  # once readmitted, one failure is enough
        deadline = rig.board.next_deadline()
        pauses.append(deadline - rig.now)
        rig.at(deadline)
    assert pauses == [5.0, 10.0, 20.0, 30.0, 30.0]
    rig.connect(A, True)
    rig.at(rig.now + POLICY.max_pause_s)
    rig.connect(A, False, False)
    assert rig.health()[0] is Health.UNCHECKED
    rig.connect(A, False)
    assert rig.board.next_deadline() == rig.now + 5.0


def test_at_most_half_are_ejected():
    rig = Rig(service(A, B, C, D))
    for backend in (A, B, C, D):
        rig.connect(backend, False, False, False)
    assert rig.health() == [Health.EJECTED] * 2 + [Health.UNCHECKED] * 2
    assert rig.row(C).reason == (
        "kept although 3 connections in a row failed: at most half of the backends are ejected, and 2 of 4 are"
    )
    rig.connect(C, True)
    assert rig.row(C).reason == "no health check"


@pytest.mark.parametrize("endpoints", [(A,), (A, B)])
def test_the_last_backend_is_never_ejected(endpoints):
    rig = Rig(service(*endpoints))
    for backend in endpoints:
        rig.connect(backend, *[False] * 10)
    assert rig.health()[-1] is Health.UNCHECKED
    assert rig.row(endpoints[-1]).reason == (
        "kept although 10 connections in a row failed: no other backend takes new connections"
    )


def test_one_kept_is_ejected_as_soon_as_there_is_room():
    rig = Rig(service(A, B))
    rig.connect(A, False, False, False)
    rig.connect(B, False, False, False)
    rig.at(5.0)
    rig.connect(B, False)
    assert rig.health() == [Health.UNCHECKED, Health.EJECTED]


def test_backends_that_are_down_leave_nobody_to_eject_for():
    rig = Rig(service(A, B, C, check=CHECK))
    rig.check(B, False)
    rig.check(C, False)
    rig.connect(A, False, False, False)
    assert rig.health() == [Health.UNCHECKED, Health.DOWN, Health.DOWN]


def test_when_the_last_other_goes_down_the_ejected_come_back():
    rig = Rig(service(A, B, check=CHECK))
    rig.check(B, True)
    rig.connect(A, False, False, False)
    rig.check(B, False, False, False)
    assert rig.health() == [Health.UNCHECKED, Health.DOWN]
    assert rig.row(A).reason == "readmitted: no other backend takes new connections"
    assert [(change.backend, change.now) for change in rig.told[-2:]] == [
        (B, Health.DOWN),
        (A, Health.UNCHECKED),
    ]


def test_checks_that_pass_readmit_early():
    rig = Rig(service(A, B, check=CHECK))
    rig.check(A, True, True, True)
    rig.connect(A, False, False, False)
    rig.check(A, True)
    assert rig.health()[0] is Health.EJECTED
    rig.check(A, True)
    assert rig.health()[0] is Health.UP
    assert rig.row(A).reason == "readmitted: 2 checks passed"
    assert rig.board.next_deadline() is None


def test_checks_that_fail_turn_ejected_into_down_for_as_long_as_they_fail():
    rig = Rig(service(A, B, check=CHECK))
    rig.check(A, True)
    rig.connect(A, False, False, False)
    rig.check(A, False, False, False)
    assert rig.health()[0] is Health.DOWN
    rig.at(100.0)
    assert rig.health()[0] is Health.DOWN
    rig.check(A, True, True)
    assert rig.health()[0] is Health.UP
    rig.connect(A, False, False)
    assert rig.health()[0] is Health.UP


def test_connections_of_backends_that_are_out_count_for_nothing():
    rig = Rig(service(A, B, C, weights={C: 0}, check=CHECK))
    rig.check(A, False)
    rig.connect(A, *[False] * 5)
    rig.connect(C, *[False] * 5)
    assert rig.health() == [Health.DOWN, Health.UNCHECKED, Health.DRAINING]
    assert (rig.row(A).failed_connections, rig.row(C).failed_connections) == (0, 0)
    rig.connect(ENDPOINTS[6], False)
    rig.connect(A, False, name="nobody")
    rig.check(A, True, name="nobody")


def test_a_reload_keeps_what_is_known_of_backends_that_stay():
    rig = Rig(service(A, B, C, D, check=CHECK))
    rig.check(A, False)
    rig.check(B, True)
    rig.connect(B, False, False, False)
    rig.connect(C, False, False)
    since = rig.row(A).since
    rig.now = 1.0
    rig.board.configure([service(D, C, B, A, ENDPOINTS[5], check=CHECK, weights={A: 7})], now=rig.now)
    assert rig.health() == [Health.UNCHECKED, Health.UNCHECKED, Health.EJECTED, Health.DOWN, Health.UNCHECKED]
    assert rig.board.views("web")[3] == BackendView(backend=Backend(endpoint=A, weight=7), health=Health.DOWN)
    assert rig.row(A).since == since
    assert rig.board.next_deadline() == 5.0
    rig.connect(C, False)
    assert rig.health()[1] is Health.EJECTED


def test_a_reload_forgets_backends_and_services_that_go():
    rig = Rig(service(A, B, check=CHECK), service(A, name="api"))
    rig.check(A, False)
    rig.board.configure([service(B, check=CHECK)], now=1.0)
    rig.board.configure([service(A, B, check=CHECK)], now=2.0)
    assert rig.health() == [Health.UNCHECKED, Health.UNCHECKED]
    with pytest.raises(KeyError):
        rig.board.views("api")


def test_a_check_that_goes_takes_its_verdict_along():
    rig = Rig(service(A, B, check=CHECK))
    rig.check(A, False)
    rig.board.configure([service(A, B)], now=1.0)
    assert rig.health() == [Health.UNCHECKED, Health.UNCHECKED]
    assert (rig.row(A).reason, rig.row(A).last_check) == ("no health check", None)
    rig.check(A, False)  # late, from the task that is being ended
    assert rig.health() == [Health.UNCHECKED, Health.UNCHECKED]


def test_a_check_that_changes_keeps_the_state_and_counts_anew():
    rig = Rig(service(A, check=CHECK))
    rig.check(A, True, False, False)
    rig.board.configure([service(A, check=attrs.evolve(CHECK, path="/other"))], now=1.0)
    rig.check(A, False, False)
    assert rig.health() == [Health.UP]
    rig.check(A, False)
    assert rig.health() == [Health.DOWN]


def test_drain_and_back():
    rig = Rig(service(A, B, check=CHECK))
    rig.check(A, True)
    rig.check(B, True)
    rig.connect(A, False, False, False)
    rig.board.configure([service(A, B, check=CHECK, weights={A: 0})], now=1.0)
    assert rig.health() == [Health.DRAINING, Health.UP]
    assert rig.board.next_deadline() is None
    rig.check(A, False, False, False)
    assert (rig.health()[0], rig.row(A).reason) == (Health.DRAINING, "weight is 0")
    rig.board.configure([service(A, B, check=CHECK)], now=2.0)
    assert (rig.health()[0], rig.row(A).reason) == (Health.DOWN, "3 checks in a row failed: status 503")


def test_a_reload_that_leaves_too_few_readmits_the_longest_out():
    rig = Rig(service(A, B, C, D))
    rig.connect(B, False, False, False)
    rig.now = 1.0
    rig.connect(A, False, False, False)
    rig.board.configure([service(A, B, C)], now=2.0)
    assert rig.health() == [Health.EJECTED, Health.UNCHECKED, Health.UNCHECKED]
    rig.board.configure([service(A, C, weights={C: 0})], now=3.0)
    assert rig.health() == [Health.UNCHECKED, Health.DRAINING]
    assert [change.reason for change in rig.told[2:]] == [
        "readmitted: at most half of the backends are ejected",
        "readmitted: no other backend takes new connections",
    ]


def test_a_long_error_is_cut():
    rig = Rig(service(A, B))
    rig.connect(A, False, error="x" * 1000)
    assert len(rig.row(A).last_error) == 200
    rig.connect(A, False, error="")
    assert rig.row(A).last_error == "no reason given"


def test_views_are_the_same_object_until_something_changes():
    rig = Rig(service(A, B))
    before = rig.board.views("web")
    rig.connect(A, False, False)
    assert rig.board.views("web") is before
    rig.connect(A, False)
    assert rig.board.views("web") is not before


class BoardMachine(RuleBasedStateMachine):
    """Any events in any order; the model knows the checks' verdicts, the laws judge the rest."""

    @initialize(count=st.integers(1, 5), check=st.booleans())
    def start(self, count, check):
        self.rig = Rig()
        self.rig.board.listen(self.hear)
        self.last_told: dict[Endpoint, Health] = {}
        self.verdicts: dict[Endpoint, Health] = {}
        self.runs: dict[Endpoint, tuple[bool, int]] = {}
        self.weights: dict[Endpoint, int] = {}
        self.check: HealthCheck | None = None
        self.reload(ENDPOINTS[:count], [], check)

    def hear(self, change):
        was = self.last_told.get(change.backend)
        assert was is None or change.was is was
        assert change.was is not change.now
        assert change.reason
        self.last_told[change.backend] = change.now
        laws(self.rig.board)  # the board is consistent already when it tells

    @rule(
        endpoints=st.lists(st.sampled_from(ENDPOINTS), min_size=1, max_size=7, unique=True),
        drained=st.lists(st.sampled_from(ENDPOINTS), max_size=3),
        check=st.booleans(),
    )
    def reload(self, endpoints, drained, check):
        self.check = CHECK if check else None
        self.weights = {each: 0 if each in drained else 2 for each in endpoints}
        self.verdicts = {
            each: self.verdicts.get(each, Health.UNCHECKED) if check else Health.UNCHECKED
            for each in endpoints
        }
        self.runs = {each: self.runs[each] for each in endpoints if check and each in self.runs}
        self.last_told = {}
        self.rig.board.configure(
            [service(*endpoints, check=self.check, weights=self.weights)], now=self.rig.now
        )
        self.last_told = {view.backend.endpoint: view.health for view in self.rig.board.views("web")}

    @rule(backend=st.sampled_from(ENDPOINTS), ok=st.booleans())
    def check_once(self, backend, ok):
        if self.check and backend in self.verdicts:
            was_ok, length = self.runs.get(backend, (ok, 0))
            self.runs[backend] = (ok, length + 1 if was_ok is ok else 1)
            verdict, run = self.verdicts[backend], self.runs[backend][1]
            if verdict is Health.UNCHECKED or run >= (CHECK.rise if ok else CHECK.fall):
                self.verdicts[backend] = Health.UP if ok else Health.DOWN
        self.rig.check(backend, ok)

    @rule(backend=st.sampled_from(ENDPOINTS), results=st.lists(st.booleans(), min_size=1, max_size=4))
    def connections(self, backend, results):
        self.rig.connect(backend, *results)

    @rule(backends=st.lists(st.sampled_from(ENDPOINTS), min_size=1, unique=True))
    def outage(self, backends):
        for backend in backends:
            self.rig.connect(backend, *[False] * POLICY.failures)

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 31.0]))
    def wait(self, seconds):
        self.rig.at(self.rig.now + seconds)

    @rule()
    def wait_for_deadline(self):
        deadline = self.rig.board.next_deadline()
        if deadline is not None:
            ejected = self.rig.health().count(Health.EJECTED)
            self.rig.at(deadline)
            assert self.rig.health().count(Health.EJECTED) < ejected

    @invariant()
    def the_laws_hold(self):
        laws(self.rig.board)

    @invariant()
    def only_ejection_parts_health_from_the_checks_verdict(self):
        for view in self.rig.board.views("web"):
            endpoint = view.backend.endpoint
            verdict = self.verdicts[endpoint]
            if self.weights[endpoint] == 0:
                assert view.health is Health.DRAINING
            elif verdict is Health.DOWN:
                assert view.health is Health.DOWN
            else:
                assert view.health in (verdict, Health.EJECTED)

    @invariant()
    def whoever_listens_knows_every_state(self):
        health = {view.backend.endpoint: view.health for view in self.rig.board.views("web")}
        assert health == self.last_told

    @invariant()
    def rows_agree_with_views(self):
        rows = self.rig.board.rows()
        assert [(row.backend, row.weight, row.health) for row in rows] == [
            (view.backend.endpoint, view.backend.weight, view.health) for view in self.rig.board.views("web")
        ]
        assert all(row.reason for row in rows)
        assert all(row.since <= self.rig.wall + self.rig.now for row in rows)

    @invariant()
    def a_deadline_is_ahead_and_stands_for_an_ejection(self):
        deadline = self.rig.board.next_deadline()
        assert (deadline is not None) == (Health.EJECTED in self.rig.health())
        if deadline is not None:
            assert self.rig.now <= deadline <= self.rig.now + POLICY.max_pause_s


def laws(board):
    for _, group in itertools.groupby(board.rows(), key=lambda row: row.service):
        weighted = [row for row in group if row.weight]
        ejected = sum(row.health is Health.EJECTED for row in weighted)
        assert ejected <= len(weighted) // 2
        if ejected:
            assert any(row.health in (Health.UP, Health.UNCHECKED) for row in weighted)


TestBoardMachine = BoardMachine.TestCase
TestBoardMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
