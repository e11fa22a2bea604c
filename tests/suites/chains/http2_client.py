"""A client of HTTP/2 that sends what it is told to, by its own frames: no library has a say in what is well-formed."""

from __future__ import annotations

import socket

import hpack
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from tests.suites.chains.answers import LONGEST_S
from tests.suites.chains.corpus.http2 import Header, Stream

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_AFTER: tuple[Header, ...] = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"a.test"),
    (b":path", b"/after"),
)
RESET = -1
"""For a status: the stream, or the connection, was ended."""


def ask(port: int, stream: Stream) -> tuple[int, int]:
    """Send a stream, and an honest request in the next one; return the statuses of both."""
    encoder = hpack.Encoder()
    frames = [SettingsFrame(0), *_frames(1, stream, encoder), *_frames(3, Stream("", _AFTER), encoder)]
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST_S) as sock:
        sock.sendall(_PREFACE + b"".join(frame.serialize() for frame in frames))
        return _read_statuses(sock)


def _frames(number: int, stream: Stream, encoder: hpack.Encoder) -> list[Frame]:
    parts: list[Frame] = [
        HeadersFrame(number, encoder.encode(stream.headers, huffman=False), flags=["END_HEADERS"])
    ]
    if stream.body is not None:
        parts.append(DataFrame(number, stream.body))
    if stream.trailers:
        parts.append(
            HeadersFrame(number, encoder.encode(stream.trailers, huffman=False), flags=["END_HEADERS"])
        )
    parts[-1].flags.add("END_STREAM")
    return parts


def _read_statuses(sock: socket.socket) -> tuple[int, int]:
    decoder = hpack.Decoder()
    statuses: dict[int, int] = {}
    left = {1, 3}
    try:
        while left and (frame := _read_frame(sock)) is not None:
            if isinstance(frame, GoAwayFrame):
                break
            if isinstance(frame, HeadersFrame):
                status = int(dict(decoder.decode(frame.data)).get(":status", 0))
                if status >= 200:
                    statuses[frame.stream_id] = status
            if isinstance(frame, RstStreamFrame):
                statuses.setdefault(frame.stream_id, RESET)
                left.discard(frame.stream_id)
            if "END_STREAM" in frame.flags:
                left.discard(frame.stream_id)
    except ConnectionError:
        pass
    return statuses.get(1, RESET), statuses.get(3, RESET)


def _read_frame(sock: socket.socket) -> Frame | None:
    head = _read(sock, 9)
    if len(head) < 9:
        return None
    frame, length = Frame.parse_frame_header(memoryview(head))
    frame.parse_body(memoryview(_read(sock, length)))
    return frame


def _read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data
