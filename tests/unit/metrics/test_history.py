import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.metrics import CounterHistory
from marchproxy_core.model import ServiceStats, TierStats


def stats(opened, **more):
    return TierStats(services={"web": ServiceStats(connections_opened=opened, bytes_in=opened * 10, **more)})


def opened(history, current):
    return history.total(current)["sockets"].services["web"].connections_opened


def test_sum_goes_on_after_the_tier_attached_again():
    history = CounterHistory()
    assert opened(history, {"sockets": stats(5, connections_active=2)}) == 5
    history.fold("sockets", stats(7))
    assert opened(history, {}) == 7
    assert opened(history, {"sockets": stats(0)}) == 7
    assert opened(history, {"sockets": stats(4, drops={"no_backend": 1})}) == 11
    history.fold("sockets")
    total = history.total({})["sockets"].services["web"]
    assert (total.connections_opened, total.bytes_in, total.drops) == (11, 110, {"no_backend": 1})


def test_a_stale_last_snapshot_loses_nothing_that_was_shown():
    history = CounterHistory()
    assert opened(history, {"sockets": stats(9)}) == 9
    history.fold("sockets", stats(3))
    assert opened(history, {}) == 9


def test_what_is_active_is_never_of_the_past():
    history = CounterHistory()
    history.total({"sockets": stats(5, connections_active=2, backend_active={"10.0.0.1:80": 2})})
    history.fold("sockets", stats(5, connections_active=2, backend_active={"10.0.0.1:80": 2}))
    total = history.total({})["sockets"].services["web"]
    assert (total.connections_active, dict(total.backend_active)) == (0, {})


def test_packets_that_a_tier_saw_are_summed_like_its_services_and_outlive_these():
    history = CounterHistory()
    history.total({"xdp": TierStats(packets_seen={"blocked": 5})})
    history.fold("xdp", TierStats(packets_seen={"blocked": 6, "pace": 1}))
    history.keep(())
    total = history.total({"xdp": TierStats(packets_seen={"blocked": 2})})["xdp"]
    assert (total.packets_seen, total.services) == ({"blocked": 8, "pace": 1}, {})


def test_service_that_went_and_came_back_within_an_attachment_goes_on():
    history = CounterHistory()
    assert opened(history, {"sockets": stats(5)}) == 5
    assert opened(history, {"sockets": TierStats()}) == 5
    assert opened(history, {"sockets": stats(2)}) == 7


def test_services_gone_from_the_configuration_are_forgotten():
    history = CounterHistory()
    history.fold("sockets", stats(5))
    history.keep(())
    assert history.total({}) == {}


@given(st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=5), max_size=6), st.booleans())
def test_sum_never_falls_and_is_exact(attachments, fold_with_last):
    history, before, past = CounterHistory(), 0, 0
    for increments in attachments:
        count = 0
        for increment in increments:
            count += increment
            now = opened(history, {"sockets": stats(count)})
            assert now == past + count >= before
            before = now
        history.fold("sockets", stats(count) if fold_with_last else None)
        past += count
    assert sum(map(sum, attachments)) == past


REQUESTS = {
    "answers": {"2xx": 4, "5xx": 1},
    "durations": (3, 2),
    "duration_sum_s": 0.5,
    "cache": {"hit": 2, "miss": 3},
    "retries": 1,
    "reused": 3,
}


def test_requests_are_summed_over_attachments_and_open_websockets_are_not():
    history = CounterHistory()
    history.total({"sockets": stats(5, **REQUESTS, websockets_active=2)})
    history.fold("sockets", stats(6, **REQUESTS | {"answers": {"2xx": 5, "5xx": 1}, "durations": (3, 3)}))
    assert history.total({})["sockets"].services["web"].websockets_active == 0
    now = {
        "answers": {"2xx": 1, "4xx": 1},
        "durations": (0, 1, 1),
        "duration_sum_s": 2.0,
        "cache": {"hit": 1},
    }
    total = history.total({"sockets": stats(2, **now, websockets_active=7)})["sockets"].services["web"]
    assert total.answers == {"2xx": 6, "4xx": 1, "5xx": 1}
    assert (total.durations, total.duration_sum_s) == ((3, 4, 1), 2.5)
    assert total.cache == {"hit": 3, "miss": 3}
    assert (total.retries, total.reused, total.websockets_active) == (1, 3, 7)


@pytest.mark.parametrize(
    "fallen",
    [
        {"answers": {"2xx": 3, "5xx": 1}},
        {"durations": (2, 2)},
        {"durations": ()},
        {"duration_sum_s": 0.1},
        {"cache": {"hit": 2}},
        {"retries": 0},
        {"reused": 2},
    ],
)
def test_any_counter_of_requests_that_falls_starts_anew(fallen):
    history = CounterHistory()
    history.total({"sockets": stats(5, **REQUESTS)})
    total = history.total({"sockets": stats(5, **REQUESTS | fallen)})["sockets"].services["web"]
    assert total.connections_opened == 10
