"""That a turn is not believed which left no log, or cached nothing."""

from __future__ import annotations

import pytest

from bench.http.confirming import confirm_cached, confirm_logged, count_lines
from bench.starting import TurnFailed


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "access.log"
    file.write_text("GET /\n" * 95)
    return file


def test_a_log_that_lacks_only_what_may_be_in_a_buffer_is_believed(log):
    confirm_logged(log, 100)
    assert count_lines(log) == 95


def test_requests_without_lines_are_a_failure(log):
    with pytest.raises(TurnFailed, match="95 lines for 1,000 requests"):
        confirm_logged(log, 1_000)


def test_no_log_at_all_is_a_failure(tmp_path):
    with pytest.raises(TurnFailed, match="0 lines for 1 requests"):
        confirm_logged(tmp_path / "none", 1)


def test_a_cache_may_ask_the_backend_now_and_then(log):
    confirm_cached(log, 10_000)
    assert count_lines(log) == 95


def test_a_cache_that_asks_the_backend_each_time_is_none(log):
    with pytest.raises(TurnFailed, match="not cached: the backend saw 95 of 100 requests"):
        confirm_cached(log, 100)
