import importlib.util
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from marchproxy_core.drops import DropReason
from marchproxy_core.metrics import OTHER, bounded_reasons, exposition
from marchproxy_core.model import ServiceStats, TierStats

_path = Path(__file__).parents[1] / "admin" / "fake_engine.py"
_spec = importlib.util.spec_from_file_location("fake_engine_for_metrics", _path)
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)


LABELS = ("from", "to", "service", "backend", "tier", "direction", "state", "reason")


def samples(engine, name):
    text = exposition(engine).render("")[0].decode()
    return {
        tuple(sample.labels[label] for label in LABELS if label in sample.labels): sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name == name
    }


def test_every_metric_of_the_settings_page_that_this_release_can_fill():
    engine = fake.make_engine()
    assert samples(engine, "marchproxy_bytes_transferred_total")["web", "sockets", "in"] == 1000
    assert samples(engine, "marchproxy_connections_opened_total") == {
        ("web", "sockets"): 12,
        ("dns", "sockets"): 5,
    }
    assert samples(engine, "marchproxy_connections_active")["web", "sockets"] == 3
    assert samples(engine, "marchproxy_packets_total") == {
        ("dns", "sockets", "in"): 7,
        ("dns", "sockets", "out"): 6,
    }
    seen = samples(engine, "marchproxy_packets_seen_total")
    assert seen == {("xdp", "not_ours"): 30, ("xdp", "blocked"): 7}
    assert samples(engine, "marchproxy_xdp_total_packets_total") == {(): 37}
    states = samples(engine, "marchproxy_tier_state")
    assert (states["xdp", "refused"], states["xdp", "chosen"], states["torn", "broken"]) == (1, 0, 1)
    assert samples(engine, "marchproxy_fallbacks_total") == {("xdp", "sockets", "interface_gone"): 2}
    assert samples(engine, "marchproxy_drops_total") == {
        ("web", "sockets", "no_backend"): 2,
        ("web", "sockets", OTHER): 1,
    }
    assert samples(engine, "marchproxy_backend_health")["dns", "10.0.0.3:53", "draining"] == 1
    assert samples(engine, "marchproxy_backend_connections_active")["web", "10.0.0.1:80"] == 2
    assert samples(engine, "marchproxy_ready") == {(): 1}
    assert samples(engine, "process_open_fds")[()] > 2


def test_labels_are_bounded_by_the_configuration():
    assert {service for service, _ in samples(fake.make_engine(), "marchproxy_connections_opened_total")} == {
        "web",
        "dns",
    }


def test_fallback_reasons_that_are_sentences_are_summed():
    engine = fake.make_engine()
    engine.moves = {("a", "b", "it broke: x"): 1, ("a", "b", "it broke: y"): 2, ("a", "b", "hung"): 4}
    assert samples(engine, "marchproxy_fallbacks_total") == {("a", "b", OTHER): 3, ("a", "b", "hung"): 4}


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=200))
def test_drop_reasons_are_few_and_lose_no_drop(drops):
    bounded = bounded_reasons(drops)
    assert sum(bounded.values()) == sum(drops.values())
    assert len(bounded) <= 129


def test_every_reason_of_the_core_is_shown_by_its_name():
    drops = dict.fromkeys(map(str, DropReason), 1)
    assert bounded_reasons(drops) == drops


def test_openmetrics_where_asked_for():
    body, content_type = exposition(fake.make_engine()).render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "marchproxy_connections_opened" in {family.name for family in parse_open(body.decode())}


@pytest.mark.parametrize("name", ['we"b', "we\\b", "we\nb"])
def test_names_are_escaped(name):
    engine = fake.make_engine()
    service = attrs.evolve(fake.WEB, name=name)
    engine.config = attrs.evolve(engine.config, services=(service,))
    engine.counters = {"sockets": TierStats(services={name: ServiceStats(connections_opened=1)})}
    assert samples(engine, "marchproxy_connections_opened_total") == {(name, "sockets"): 1}


async def test_metrics_page_over_http():
    async with fake.serving(fake.make_engine()) as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "marchproxy_build_info{" in response.text
