"""Frames as they come in: cut anywhere, in order, and not too many of what is cheap (RFC 9113, sections 4 and 10.5)."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.http2.floods import Allowance
from marchproxy_application.http2.frames import PREFACE, BadFrame, Flood, FrameReader

NOW_S = 1000.0
MOST_HEADER_BYTES = 65536
START = PREFACE + SettingsFrame(0).serialize()


def begun():
    reader = FrameReader(MOST_HEADER_BYTES)
    assert reader.feed(START, NOW_S) == START
    return reader


def headers(number=1, *, data=b"\x82", flags=("END_HEADERS", "END_STREAM")):
    return HeadersFrame(number, data=data, flags=flags).serialize()


@given(st.data())
def test_frames_may_be_cut_anywhere(data):
    frames = data.draw(
        st.lists(
            st.sampled_from(
                [
                    headers(),
                    DataFrame(1, data=b"x" * 300).serialize(),
                    PingFrame(0, opaque_data=b"12345678").serialize(),
                    headers(flags=()) + ContinuationFrame(1, data=b"x", flags=["END_HEADERS"]).serialize(),
                ]
            ),
            max_size=6,
        )
    )
    whole = START + b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    reader, got = FrameReader(MOST_HEADER_BYTES), b""
    for first, after in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        if first < after:
            got += reader.feed(whole[first:after], NOW_S)
    assert got == whole
    assert not reader.is_within


def test_a_goodbye_is_kept_from_h2():
    reader = begun()
    one, two = headers(1), headers(3)
    assert reader.feed(one + GoAwayFrame(0, last_stream_id=0).serialize() + two, NOW_S) == one + two
    assert reader.has_said_goodbye


def test_half_a_frame_waits_for_the_rest():
    reader = begun()
    frame = headers()
    assert reader.feed(frame[:5], NOW_S) == b""
    assert reader.is_within
    assert reader.feed(frame[5:], NOW_S) == frame
    assert not reader.is_within


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(PREFACE + PingFrame(0, opaque_data=b"12345678").serialize(), id="settings first"),
        pytest.param(PREFACE + SettingsFrame(0, flags=["ACK"]).serialize(), id="not their acknowledgement"),
        pytest.param(START + ContinuationFrame(1, data=b"x").serialize(), id="lone continuation"),
        pytest.param(
            START + headers(flags=()) + PingFrame(0, opaque_data=b"12345678").serialize(), id="between"
        ),
        pytest.param(START + headers(flags=()) + DataFrame(1, data=b"x").serialize(), id="data between"),
        pytest.param(START + headers(flags=()) + headers(3), id="headers between"),
    ],
)
def test_frames_out_of_order_end_the_connection(sent):
    with pytest.raises(BadFrame) as caught:
        FrameReader(MOST_HEADER_BYTES).feed(sent, NOW_S)
    assert caught.value.code == 1


def test_a_frame_that_is_too_large_is_not_waited_for():
    with pytest.raises(BadFrame) as caught:
        begun().feed(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", NOW_S)
    assert caught.value.code == 6


CHEAP = {
    "SETTINGS": SettingsFrame(0),
    "SETTINGS acknowledged": SettingsFrame(0, flags=["ACK"]),
    "PING": PingFrame(0, opaque_data=b"12345678"),
    "PING answered": PingFrame(0, opaque_data=b"12345678", flags=["ACK"]),
    "PRIORITY": PriorityFrame(1, depends_on=0),
    "RST_STREAM": RstStreamFrame(1),
    "WINDOW_UPDATE": WindowUpdateFrame(0, window_increment=1),
    "WINDOW_UPDATE of a stream": WindowUpdateFrame(1, window_increment=1),
    "empty DATA": DataFrame(1),
    "DATA of padding alone": DataFrame(1, pad_length=5, flags=["PADDED"]),
    "unknown": ExtensionFrame(0xFA, 0, body=b""),
    "GOAWAY": GoAwayFrame(0),
}


@pytest.mark.parametrize("frame", CHEAP.values(), ids=CHEAP.keys())
def test_too_much_of_what_is_cheap_is_a_flood(frame):
    reader, data = begun(), frame.serialize()
    with pytest.raises(Flood):
        reader.feed(data * 2000, NOW_S)


@pytest.mark.parametrize("frame", CHEAP.values(), ids=CHEAP.keys())
def test_a_little_of_it_now_and_then_is_none(frame):
    reader, data = begun(), frame.serialize()
    for second in range(2000):
        assert reader.feed(data, NOW_S + second) == (b"" if isinstance(frame, GoAwayFrame) else data)


def test_data_that_ends_a_stream_may_be_empty():
    reader, data = begun(), DataFrame(1, flags=["END_STREAM"]).serialize()
    for _ in range(2000):
        assert reader.feed(data, NOW_S) == data


def test_each_frame_that_we_sent_is_worth_window_updates():
    reader, data = begun(), WindowUpdateFrame(0, window_increment=1).serialize() * 2
    for _ in range(5000):
        reader.sent_data(1)
        assert reader.feed(data, NOW_S) == data


def test_streams_that_end_in_errors_count_as_resets():
    """What its client makes us reset costs as much as what it resets itself (CVE-2025-8671)."""
    reader = begun()
    for _ in range(200):
        reader.reset(NOW_S)
    with pytest.raises(Flood):
        reader.reset(NOW_S)


def test_continuations_have_a_bound():
    reader = begun()
    reader.feed(headers(flags=()), NOW_S)
    with pytest.raises(Flood):
        reader.feed(ContinuationFrame(1, data=b"x").serialize() * 40, NOW_S)


def test_empty_continuations_are_a_flood_at_once():
    reader = begun()
    reader.feed(headers(flags=()), NOW_S)
    with pytest.raises(Flood):
        reader.feed(ContinuationFrame(1).serialize(), NOW_S)


def test_a_header_block_has_a_bound():
    reader = begun()
    reader.feed(headers(flags=()), NOW_S)
    with pytest.raises(Flood):
        reader.feed(ContinuationFrame(1, data=b"x" * 16384).serialize() * 5, NOW_S)


def test_an_allowance_grows_back_to_its_burst():
    allowance = Allowance(2, 1)
    assert [allowance.take(NOW_S) for _ in range(3)] == [True, True, False]
    assert [allowance.take(NOW_S + 100) for _ in range(3)] == [True, True, False]


def test_what_was_earned_is_kept_within_bounds():
    allowance = Allowance(2, 1)
    allowance.earn(1000)
    assert sum(allowance.take(NOW_S) for _ in range(1000)) == 20
