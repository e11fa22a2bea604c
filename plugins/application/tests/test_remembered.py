"""What a worker remembers of requests is bounded, found by the request's id, and short enough to be sent."""

from __future__ import annotations

import json

from marchproxy_application.remembered import MOST, MOST_BYTES, Remembered


def keep(remembered: Remembered, number: int, **more: object) -> None:
    remembered.keep(b"%020x" % number, json.dumps({"id": f"{number:020x}", **more}).encode())


def is_known(remembered: Remembered, number: int) -> bool:
    found = remembered.find(b"%020x" % number)
    assert found is None or found["id"] == f"{number:020x}"
    return found is not None


def test_the_last_ones_are_remembered_at_any_time() -> None:
    remembered = Remembered()
    for number in range(3 * MOST):
        keep(remembered, number)
        assert len(remembered) <= 2 * MOST
        assert is_known(remembered, max(number - MOST + 1, 0))
        assert is_known(remembered, number)
    assert not is_known(remembered, 0)
    assert not is_known(remembered, 4 * MOST)


def test_long_lines_make_others_go() -> None:
    remembered = Remembered()
    for number in range(100):
        keep(remembered, number, path="/" * (MOST_BYTES // 10))
        assert len(remembered) <= 20
    assert all(is_known(remembered, number) for number in range(91, 100))
    assert not is_known(remembered, 50)


def test_what_is_very_long_is_cut_to_what_can_be_sent() -> None:
    remembered = Remembered()
    attempts = [{"backend": "192.0.2.1:80", "ms": 1.5, "error": "\xff" * 4000}] * 30
    texts = dict.fromkeys(("host", "path", "subject"), "\xff" * 40000)
    keep(remembered, 1, attempts=attempts, status=502, **texts)
    told = remembered.find(b"%020x" % 1)
    assert told is not None
    assert len(json.dumps(told)) <= 32768
    assert told["status"] == 502
    assert told["path"] == "\xff" * 1024
