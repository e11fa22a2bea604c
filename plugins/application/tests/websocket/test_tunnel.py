"""Where frames end, in whatever pieces they come, and what a Close is put between (RFC 6455, section 5)."""

from __future__ import annotations

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from marchproxy_application.websocket.frames import FrameWalk, close_frame
from marchproxy_application.websocket.tunnel import Tunnel


def frame(payload, *, masked):
    size = len(payload)
    mark = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x82, mark | size))
    elif size < 1 << 16:
        head = bytes((0x82, mark | 126)) + struct.pack("!H", size)
    else:
        head = bytes((0x82, mark | 127)) + struct.pack("!Q", size)
    return head + (b"mask" if masked else b"") + payload


PAYLOADS = st.one_of(st.binary(max_size=300), st.integers(65_530, 65_545).map(bytes))
FRAMES = st.lists(st.builds(frame, PAYLOADS, masked=st.booleans()), min_size=1, max_size=4)


def pieces_of(data, cuts):
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


@given(FRAMES, st.lists(st.integers(0, 70_000), max_size=12))
def test_frames_end_where_they_do_in_whatever_pieces(frames, cuts):
    walk, whole = FrameWalk(), b"".join(frames)
    ends = [sum(map(len, frames[: count + 1])) for count in range(len(frames))]
    at = 0
    for piece in pieces_of(whole, cuts):
        first = walk.walk(piece)
        inside = [end for end in ends if at < end <= at + len(piece)]
        assert first == (inside[0] - at if inside else -1)
        at += len(piece)
        assert walk.is_between is (at in ends)


def test_what_was_spliced_counts_as_walked():
    walk = FrameWalk()
    walk.walk(frame(bytes(100_000), masked=True)[:1014])
    assert walk.left == 99_000
    walk.skip(99_000)
    assert walk.is_between


@given(FRAMES, st.lists(st.integers(0, 70_000), max_size=6), st.integers(0, 6))
def test_a_close_stands_between_two_frames_and_nothing_comes_behind_it(frames, cuts, when):
    tunnel, got = Tunnel(), b""
    for place, piece in enumerate(pieces_of(b"".join(frames), cuts)):
        if place == when:
            got += tunnel.go_away()[0]
        got += tunnel.to_client(piece)
    if not tunnel.is_closing:
        assert got == b"".join(frames)
        return
    close = close_frame(1001, masked=False)
    assert got.endswith(close)
    kept = got[: -len(close)]
    ends = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    assert len(kept) in ends
    assert b"".join(frames).startswith(kept)


def test_a_close_to_a_server_is_masked_and_says_1001():
    closed = close_frame(1001, masked=True)
    assert closed[:2] == b"\x88\x82"
    assert bytes(a ^ b for a, b in zip(closed[6:], closed[2:6], strict=False)) == struct.pack("!H", 1001)


def test_both_sides_are_told_once():
    tunnel = Tunnel()
    to_client, to_backend = tunnel.go_away()
    assert to_client == close_frame(1001, masked=False)
    assert to_backend[:2] == b"\x88\x82"
    assert tunnel.go_away() == (b"", b"")
    assert tunnel.to_client(frame(b"late", masked=False)) == b""
    assert tunnel.to_backend(frame(b"late", masked=True)) == b""
