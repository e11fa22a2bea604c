"""Frames are cut the same however they come, and nothing but ``BadFrame`` comes of nonsense."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.backends import http2_frames as frames
from marchproxy_application.backends.http2_frames import Frame, FrameCutter
from marchproxy_application.http2.frames import CONTINUATION, DATA, HEADERS, BadFrame

SETTINGS = SettingsFrame(0, settings={4: 100}).serialize()
numbers = st.integers(1, 2**31 - 1)


def cut(data, at=()):
    cutter, got, before = FrameCutter(), [], 0
    for after in [*sorted(at), len(data)]:
        got += list(cutter.feed(data[before:after]))
        before = after
    return got


@given(st.binary(max_size=200), numbers, st.integers(0, 60), st.booleans())
def test_data_loses_its_padding_and_keeps_its_size(body, number, padding, ends):
    flags = ["END_STREAM"] if ends else []
    padded = DataFrame(number, data=body, pad_length=padding, flags=[*flags, "PADDED"])
    _, frame = cut(SETTINGS + padded.serialize())
    assert (frame.kind, frame.stream, frame.payload) == (DATA, number, body)
    assert frame.size == len(body) + padding + 1
    assert bool(frame.flags & frames.END_STREAM) is ends


@given(st.binary(min_size=1, max_size=300), numbers, st.integers(1, 100), st.sets(st.integers(0, 900)))
def test_a_header_block_comes_as_one_however_it_is_cut(block, number, most, at):
    data = SETTINGS + frames.head_frames(number, block, most, ends=True)
    pieces = -(-len(block) // most)
    if pieces > 32:
        with pytest.raises(BadFrame):
            cut(data)
        return
    _, frame = cut(data, [one for one in at if one < len(data)])
    assert (frame.kind, frame.stream, frame.payload) == (HEADERS, number, block)
    assert frame.flags & frames.END_STREAM


@given(st.binary(max_size=100), numbers)
def test_a_priority_in_a_head_is_left_out(block, number):
    head = HeadersFrame(
        number, data=block, depends_on=1, flags=["END_HEADERS", "PRIORITY", "PADDED"], pad_length=3
    )
    _, frame = cut(SETTINGS + head.serialize())
    assert frame.payload == block


@given(st.binary(max_size=400), st.booleans())
def test_nonsense_is_refused_or_waited_for(data, begins):
    try:
        got = cut(SETTINGS + data if begins else data)
    except BadFrame:
        return
    assert all(isinstance(frame, Frame) and frame.kind != CONTINUATION for frame in got)


def test_the_first_frame_is_settings():
    with pytest.raises(BadFrame):
        cut(DataFrame(1, data=b"x").serialize())
    with pytest.raises(BadFrame):
        cut(SettingsFrame(0, flags=["ACK"]).serialize())
    with pytest.raises(BadFrame):
        cut(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    "frame",
    [
        DataFrame(1, data=b"x").serialize().replace(b"\0\0\0\1", b"\0\0\0\0", 1),
        SETTINGS[:5] + b"\0\0\0\1" + SETTINGS[9:],
        GoAwayFrame(0, last_stream_id=0).serialize()[:2] + b"\4\7\0\0\0\0\0abcd",
        PriorityFrame(1).serialize()[:2] + b"\4\2\0\0\0\0\1abcd",
        ContinuationFrame(1, data=b"x").serialize(),
    ],
)
def test_frames_that_are_none(frame):
    with pytest.raises(BadFrame):
        cut(SETTINGS + frame)


def test_an_unknown_frame_is_passed_by():
    unknown = ExtensionFrame(0xBE, 0, flag_byte=7, body=b"whatever").serialize()
    assert [frame.kind for frame in cut(SETTINGS + unknown)] == [4, 0xBE]


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1))))
def test_settings_come_back_as_they_were(values):
    (frame,) = cut(frames.settings_frame(values))
    assert list(frames.read_settings(frame.payload)) == values
