import importlib.util
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from marchproxy_core.metrics import exposition
from marchproxy_core.metrics.requests import cumulative
from marchproxy_core.model import ServiceStats, TierStats
from marchproxy_core.services import Auth
from marchproxy_core.workers.ledger import DURATION_BOUNDS_S

_path = Path(__file__).parents[1] / "admin" / "fake_engine.py"
_spec = importlib.util.spec_from_file_location("fake_engine_for_requests", _path)
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

OF_HTTP = {
    "marchproxy_requests",
    "marchproxy_request_duration_seconds",
    "marchproxy_cache_requests",
    "marchproxy_retries",
    "marchproxy_backend_connections_reused",
    "marchproxy_websockets_active",
}


@pytest.fixture
def engine():
    one = fake.make_engine()
    one.counters |= fake.SOME_REQUESTS
    return one


def families(engine):
    text = exposition(engine).render("")[0].decode()
    return {family.name: family.samples for family in parse(text)}


def by(samples, label):
    return {sample.labels[label]: sample.value for sample in samples}


def test_requests_by_the_class_of_their_answer(engine):
    samples = families(engine)["marchproxy_requests"]
    assert by(samples, "code") == {"1xx": 0, "2xx": 5, "3xx": 0, "4xx": 2, "5xx": 0}
    assert {(one.labels["service"], one.labels["tier"]) for one in samples} == {("locked", "application")}


def test_durations_are_a_histogram(engine):
    samples = families(engine)["marchproxy_request_duration_seconds"]
    buckets = by([one for one in samples if one.name.endswith("_bucket")], "le")
    assert [float(bound) for bound in buckets] == [*DURATION_BOUNDS_S, float("inf")]
    assert (buckets["0.001"], buckets["0.0025"], buckets["0.005"]) == (3, 3, 5)
    assert (buckets["10.0"], buckets["+Inf"]) == (5, 7)
    whole = {one.name.rsplit("_", 1)[1]: one.value for one in samples if "le" not in one.labels}
    assert whole == {"count": 7, "sum": 31.5}


def test_cache_and_pools_and_websockets(engine):
    found = families(engine)
    outcomes = by(found["marchproxy_cache_requests"], "outcome")
    assert outcomes == {"hit": 2, "stale": 0, "revalidated": 0, "miss": 5, "bypass": 0}
    values = {
        name: [one.value for one in found[f"marchproxy_{name}"]] for name in ("retries", "websockets_active")
    }
    assert values == {"retries": [1], "websockets_active": [3]}
    assert [one.value for one in found["marchproxy_backend_connections_reused"]] == [4]


def test_what_is_not_read_as_http_has_no_metrics_of_requests(engine):
    of_http = {name: samples for name, samples in families(engine).items() if name in OF_HTTP}
    assert set(of_http) == OF_HTTP
    assert {one.labels["service"] for samples in of_http.values() for one in samples} == {"locked"}
    assert not OF_HTTP & set(families(fake.make_engine()))


def test_a_service_for_http_shows_zeros_before_its_first_request(engine):
    engine.counters["application"] = TierStats(services={"locked": ServiceStats()})
    found = families(engine)
    assert set(by(found["marchproxy_requests"], "code").values()) == {0}
    assert {one.value for one in found["marchproxy_request_duration_seconds"]} == {0}


def test_a_service_that_is_read_as_http_no_longer_keeps_what_it_counted(engine):
    plain = attrs.evolve(fake.LOCKED, auth=Auth(), tls=None, websocket=False, cache=None, http=None)
    engine.config = attrs.evolve(engine.config, services=(plain,))
    assert by(families(engine)["marchproxy_requests"], "code")["2xx"] == 5


def test_openmetrics_has_the_same_histogram(engine):
    body, _ = exposition(engine).render("application/openmetrics-text; version=1.0.0")
    found = {family.name: family for family in parse_open(body.decode())}
    assert found["marchproxy_request_duration_seconds"].type == "histogram"


@given(st.lists(st.integers(0, 1000), max_size=20))
def test_buckets_never_fall_and_lose_no_request(counts):
    buckets = cumulative(tuple(counts))
    values = [value for _, value in buckets]
    assert [bound for bound, _ in buckets][-1] == "+Inf"
    assert len(buckets) == len(DURATION_BOUNDS_S) + 1
    assert values == sorted(values)
    assert values[-1] == sum(counts)
