"""What a worker remembers of requests is bounded, found by the request's id alone, and short enough to be sent."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.remembered import MOST, MOST_BYTES, Remembered


def line(request_id: str, **more: object) -> bytes:
    return json.dumps({"event": "request.answered", "id": request_id, **more}).encode()


def test_the_last_ones_are_remembered() -> None:
    remembered = Remembered()
    for number in range(MOST + 10):
        remembered.keep(line(f"{number:020x}", status=number))
    assert len(remembered) == MOST
    assert remembered.find(f"{9:020x}") is None
    assert remembered.find(f"{10:020x}") == {
        "event": "request.answered",
        "id": f"{10:020x}",
        "status": 10,
    }


def test_long_lines_make_others_go() -> None:
    remembered = Remembered()
    for number in range(100):
        remembered.keep(line(str(number), path="/" * (MOST_BYTES // 10)))
    assert len(remembered) == 9
    assert remembered.find("99") is not None


def test_what_is_very_long_is_cut_to_what_can_be_sent() -> None:
    remembered = Remembered()
    attempts = [{"backend": "192.0.2.1:80", "ms": 1.5, "error": "\xff" * 4000}] * 30
    texts = dict.fromkeys(("host", "path", "subject"), "ÿ" * 40000)
    remembered.keep(line("1", attempts=attempts, status=502, **texts))
    told = remembered.find("1")
    assert told is not None
    assert len(json.dumps(told)) <= 32768
    assert (told["status"], len(told["path"])) == (502, 1024)


@given(st.text(max_size=30), st.text(max_size=10))
def test_what_a_client_sends_is_not_taken_for_an_id(said: str, asked: str) -> None:
    remembered = Remembered()
    remembered.keep(line("mine", path=f'{said}"id": "{asked}"', subject=f'", "id": "{asked}'))
    assert (remembered.find(asked) is None) is (asked != "mine")
