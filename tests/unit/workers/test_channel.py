"""What goes between the control process and a worker arrives whole, in order, with its descriptors."""

from __future__ import annotations

import json
import os
import pickle
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.services import Endpoint
from marchproxy_core.workers.channel import Frames, WorkerChannel, frame, parse_report
from marchproxy_core.workers.messages import Lend, Retire

HERE = Endpoint.parse("192.0.2.1:80")


@given(st.lists(st.binary(max_size=300)), st.integers(1, 64))
def test_frames_survive_any_cut(bodies, size) -> None:
    stream = b"".join(frame(body) for body in bodies)
    frames = Frames()
    found = [
        body for start in range(0, len(stream), size) for body in frames.feed(stream[start : start + size])
    ]
    assert found == bodies


def test_a_worker_that_says_too_much_is_found_before_it_is_stored() -> None:
    with pytest.raises(ValueError, match="want at most 10"):
        list(Frames(10).feed(frame(bytes(11))[:5]))


@given(st.binary(max_size=100))
def test_a_report_is_an_object_or_refused(body) -> None:
    try:
        report = parse_report(body)
    except ValueError:
        return
    assert isinstance(report, dict)
    assert json.loads(body) == report


def test_descriptors_stay_with_their_messages() -> None:
    ours, theirs = socket.socketpair()
    channel = WorkerChannel(theirs)
    pipes = [os.pipe() for _ in range(3)]
    with ours:
        for number, (_, write_end) in enumerate(pipes):
            body = frame(pickle.dumps(Lend(number=number, endpoint=HERE)))
            socket.send_fds(ours, [body], [write_end])
            ours.sendall(frame(pickle.dumps(Retire())))
        got = channel.receive()
        assert [type(message).__name__ for message, _ in got] == ["Lend", "Retire"] * 3
        for (read_end, write_end), (message, descriptor) in zip(pipes, got[::2], strict=True):
            assert isinstance(message, Lend)
            assert descriptor is not None
            os.write(descriptor, b"here")
            assert os.read(read_end, 10) == b"here"
            for one in (read_end, write_end, descriptor):
                os.close(one)
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()


def test_a_report_to_nobody_is_not_an_error() -> None:
    ours, theirs = socket.socketpair()
    channel = WorkerChannel(theirs)
    assert channel.report({"ready": 1})
    assert parse_report(next(iter(Frames().feed(ours.recv(100))))) == {"ready": 1}
    ours.close()
    assert not channel.report({"ready": 1})
    channel.close()
