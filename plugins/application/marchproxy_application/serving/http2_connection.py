"""A client's connection in HTTP/2: streams side by side, answered as they are ready, each held to its windows.

h2 knows the protocol's states; what it has to say is written once a turn of the loop, however many streams had
something. Frames are looked at before h2 sees them (``http2/frames.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from marchproxy_application.http1.refusals import Refused
from marchproxy_application.http1.writing import origin_lines
from marchproxy_application.http2.answers import ReadyEncoder
from marchproxy_application.http2.frames import MOST_FRAME_BYTES, BadFrame, Flood, FrameReader
from marchproxy_application.http2.heads import Malformed, read_trailers
from marchproxy_application.http2.remembering import RememberingDecoder
from marchproxy_application.serving.http2_stream import (
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Http2Stream,
)
from marchproxy_application.streams import MOST_WAITING, Stream
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.serving.admitting import Admission
    from marchproxy_application.serving.front import Front
    from marchproxy_application.serving.http1_connection import Http1Connection
    from marchproxy_core.config import Settings as ProxySettings
    from marchproxy_core.relay.accepting import Address

MOST_STREAMS: Final = 100
CONNECTION_WINDOW: Final = 1 << 20
STREAM_WINDOW: Final = 1 << 18
_ANY_STREAM: Final = (1 << 31) - 1
_DRAIN_STEP_S: Final = 1.0
_DRAIN_PING: Final = b"draining"
_MOST_READS: Final = 8
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 1 << 20
_BROKEN: Final = 0x008 | 0x010  # EPOLLERR | EPOLLHUP
_CONFIG: Final = H2Configuration(
    client_side=False,
    header_encoding=None,
    # Judged by http2/heads.py: there what is malformed ends its stream, in h2 it would end the connection.
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_STATUS: Final = ((b":status", b"200"),)
_INTERIM: Final = ((b":status", b"100"),)


@final
class Http2Connection(Stream):
    """A client that was let in and speaks HTTP/2; counted as open until it is closed."""

    __slots__ = (
        "_carried",
        "_drain_due_s",
        "_encoder",
        "_h2",
        "_handlers",
        "_idle_since_s",
        "_is_due",
        "_is_lingering",
        "_last_number",
        "_lingered",
        "_origin",
        "_origin_host",
        "_queue",
        "_reader",
        "_said",
        "_streams",
        "_within_since_s",
        "address",
        "asked",
        "front",
        "peer",
        "port",
        "proxied",
        "scheme",
        "settings",
    )

    def __init__(self, front: Front, sock: SocketType, peer: Address) -> None:
        """Take over a non-blocking socket, before the preface was read."""
        super().__init__(front.loop, sock)
        self.front = front
        self.peer = peer
        self.address: bytes = peer[0].partition("%")[0].encode("ascii")
        self.scheme: bytes = b"http"
        self.port = front.endpoint.port
        self.proxied: Address | None = None
        """Where the client connected to, as its PROXY header says."""
        self.asked: tuple[str | None, bool] | None = None
        """What the client had to prove, as ``Admitter.asked``."""
        self._carried = front.owner.carried
        self.settings: ProxySettings = self._carried.settings
        self._streams: dict[int, Http2Stream] = {}
        self._queue: deque[Http2Stream] = deque()
        """Streams that have something to send and, as far as is known, may."""
        self._said = b""
        """What is written before what h2 has: GOAWAY frames of ours, as it takes no stream further after its own."""
        self._is_due = False
        self._is_lingering = False
        self._lingered = 0
        self._drain_due_s = 0.0
        """Until when the second step of a drain may wait; 0: no drain."""
        self._last_number = _ANY_STREAM
        """The last stream that is served."""
        self._idle_since_s = self._within_since_s = self.loop.now_s
        self._origin_host: bytes | None = None
        self._origin = b""
        http = front.owner.http
        self._reader = FrameReader(2 * http.max_header_bytes)
        self._encoder = ReadyEncoder()
        self._h2 = _new_h2(front, self._encoder)
        self._handlers: dict[type[Event], Callable[[Event], None]] = {
            RequestReceived: self._on_request,
            DataReceived: self._on_data,
            TrailersReceived: self._on_trailers,
            StreamEnded: self._on_end,
            StreamReset: self._on_reset,
            WindowUpdated: self._on_window,
            RemoteSettingsChanged: self._on_settings,
            PingAckReceived: self._on_ping_answer,
        }

    def start(self, early: bytes = b"") -> None:
        """Say our settings, and read what has come already; the connection is counted by whoever let it in."""
        self.loop.expire_at(self, self.loop.now_s + self.settings.read_timeout)
        self.flush_soon()
        if early:
            self._received(early)
        if self.readable:
            self.loop.again(self._read_again)

    def take_over(self, before: Http1Connection) -> None:
        """Go on with the socket of a connection that began with the preface of HTTP/2; that one forgets it."""
        self._carried = before._carried
        self._be_as(before)

    def enter(self, admission: Admission) -> None:
        """Go on with a client that was counted already, and has done what comes before a request."""
        self._carried = admission.carried
        self._be_as(admission)
        self.start()

    def _be_as(self, before: Http1Connection | Admission) -> None:
        self.adopt(before)
        self.scheme, self.port, self.address = before.scheme, before.port, before.address
        self.proxied, self.asked = before.proxied, before.asked

    # What comes from the client.

    def on_event(self, events: int) -> None:
        """Handle what epoll says of this socket."""
        super().on_event(events)
        if events & _BROKEN and not self.closed and not self.readable:
            self.on_broken(self.socket_error() or OSError())

    def on_readable(self) -> None:
        """Read frames, unless so much waits to be sent that their answers would find no room."""
        for _ in range(_MOST_READS):
            if not self.readable or (self.is_full and not self._is_lingering):
                return
            data = self.read()
            if data is None:
                return
            if not data:
                self._ended()
                return
            self._received(data)
            if self.closed:
                return
        if self.readable:
            self.loop.again(self._read_again)

    def on_drained(self) -> None:
        """Have the answers go on."""
        if self._is_lingering:
            self._shut_down()
            return
        self.flush_soon()
        if self.readable:
            self.loop.again(self._read_again)

    def on_broken(self, error: OSError) -> None:
        """End, since nobody is there any more."""
        del error
        self.close()

    def on_deadline(self, now_s: float) -> float | None:
        """Cut what takes too long; else say when to look again."""
        settings = self.settings
        if self.unsent:
            due_s = self.unsent_since_s + settings.write_timeout
            if now_s >= due_s:
                self.cut(DropReason.WRITE_TIMEOUT)
                return None
            return min(due_s, now_s + 1.0)
        if self._is_lingering:
            self.close()
            return None
        due_s = now_s + settings.keep_alive_timeout
        if self._drain_due_s:
            if now_s >= self._drain_due_s:
                self._say_last()
            else:
                due_s = self._drain_due_s
        if self._reader.is_within:
            due_s = min(due_s, self._within_since_s + settings.read_timeout)
            if now_s >= due_s:
                self._end(ENHANCE_YOUR_CALM, DropReason.READ_TIMEOUT)
                return now_s + _LINGER_S
        if not self._streams:
            due_s = min(due_s, self._idle_since_s + settings.keep_alive_timeout)
            if now_s >= due_s:
                self._end(NO_ERROR, None)
                return now_s + _LINGER_S
        for stream in tuple(self._streams.values()):
            due_s = min(due_s, stream.look(now_s))
        return None if self.closed else due_s

    # What streams ask for.

    @property
    def ends(self) -> tuple[Address, Address]:
        """Who it is and where it connected to."""
        return self.peer, self.proxied or self.sock.getsockname()

    def origin_of(self, host: bytes) -> bytes:
        """Return the lines that tell a backend where its requests come from."""
        if host != self._origin_host:
            self._origin_host = host
            self._origin = origin_lines(client=self.address, scheme=self.scheme, port=self.port, host=host)
        return self._origin

    def send_head(self, stream: Http2Stream, block: bytes, *, ends: bool) -> None:
        """Send a header block.

        Args:
            stream: Whose it is.
            block: As it is encoded.
            ends: Whether the stream ends with it.
        """
        self._encoder.block = block
        # h2 looks at the status alone: whether another head follows.
        status = _INTERIM if block.startswith(b"\x08\x031") else _STATUS
        self._h2.send_headers(stream.number, status, end_stream=ends)
        if ends:
            stream.has_ended = True
        self.flush_soon()

    def send_data(self, stream: Http2Stream, data: bytes, *, ends: bool) -> None:
        """Send a part of a body, for which there is room in the windows."""
        self._h2.send_data(stream.number, data, end_stream=ends)
        self._reader.sent_data(1)
        if ends:
            stream.has_ended = True

    def queue(self, stream: Http2Stream) -> None:
        """Have a stream send what it has, when it is its turn."""
        if not stream.is_queued:
            stream.is_queued = True
            self._queue.append(stream)
            self.flush_soon()

    def acknowledge(self, stream: Http2Stream, size: int) -> None:
        """Open the client's windows again."""
        if size and not self.closed and not self._is_lingering:
            self._h2.acknowledge_received_data(size, stream.number)
            self.flush_soon()

    def reset(self, stream: Http2Stream, code: int) -> None:
        """End a stream before its time; its exchange is over, or is told by whoever calls."""
        if not stream.has_ended or not stream.request_over:
            stream.has_ended = stream.request_over = True
            if not self.closed and not self._is_lingering:
                self._h2.reset_stream(stream.number, code)
                self.flush_soon()

    def abandon(self, stream: Http2Stream, code: int, reason: DropReason) -> None:
        """Reset a stream for its client's fault, and end its exchange."""
        self._carried.drop(reason)
        self.reset(stream, code)
        stream.gone()

    def leave(self, stream: Http2Stream) -> None:
        """Forget a stream that is over; what its client still sends is of no use to anybody."""
        if self._streams.pop(stream.number, None) is None:
            return
        if not stream.request_over:
            stream.request_over = True
            if not self.closed and not self._is_lingering:
                self._h2.reset_stream(stream.number, NO_ERROR)  # RFC 9113, section 8.1
        if not self._streams:
            self._idle_since_s = self.loop.now_s
        self.flush_soon()

    def flush_soon(self) -> None:
        """Write what there is at the end of this turn."""
        if not self._is_due:
            self._is_due = True
            self.loop.again(self._speak)

    # From the front.

    def close(self, *, reset: bool = False) -> None:
        """Close the socket, once, and count the end of the connection."""
        if not self.closed:
            super().close(reset=reset)
            self._carried.closed()
            self.front.connections.discard(self)
            self._forget_streams()

    def go_away(self) -> None:
        """Take no new streams, in two steps (RFC 9113, section 6.8), and close after the last one."""
        if self._drain_due_s or self._is_lingering or self.closed:
            return
        self._drain_due_s = self.loop.now_s + _DRAIN_STEP_S
        self._say_goodbye(_ANY_STREAM, NO_ERROR)
        self._h2.ping(_DRAIN_PING)
        for stream in tuple(self._streams.values()):
            stream.go_away()
        self.loop.expire_by(self, self._drain_due_s)

    def cut(self, reason: DropReason | None) -> None:
        """End at once; the reason is counted."""
        if reason is not None:
            self._carried.drop(reason)
        self.close(reset=True)

    # Reading.

    def _read_again(self) -> None:
        if not self.closed and self.readable:
            self.on_readable()

    def _received(self, data: bytes) -> None:
        if self._is_lingering:
            self._lingered += len(data)
            if self._lingered > _LINGER_BYTES:
                self.close(reset=True)
            return
        now_s = self.loop.now_s
        if not self._reader.is_within:
            self._within_since_s = now_s
        try:
            whole = self._reader.feed(data, now_s)
            if whole:
                self._handle(self._h2.receive_data(whole))
        except (Flood, DenialOfServiceError):
            self._end(ENHANCE_YOUR_CALM, DropReason.HTTP2_FLOOD)
        except BadFrame as bad:
            self._end(bad.code, DropReason.HTTP2_ERROR)
        except ProtocolError as error:
            self._h2.clear_outbound_data_buffer()  # its GOAWAY: ours says the same
            self._end(int(error.error_code), DropReason.HTTP2_ERROR)
        if self._reader.is_within:
            self.loop.expire_by(self, self._within_since_s + self.settings.read_timeout)
        self.flush_soon()

    def _handle(self, events: list[Event]) -> None:
        handlers = self._handlers
        for event in events:
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)
                if self.closed or self._is_lingering:
                    return

    def _on_request(self, event: Event) -> None:
        assert isinstance(event, RequestReceived)
        number = event.stream_id
        assert number is not None
        is_over = event.stream_ended is not None
        stream = Http2Stream(self, number, request_over=is_over)
        if len(self._streams) >= MOST_STREAMS or number > self._last_number:
            self.reset(stream, REFUSED_STREAM) if not is_over else self._h2.reset_stream(
                number, REFUSED_STREAM
            )
            self._reader.reset(self.loop.now_s)
            return
        self._streams[number] = stream
        front = self.front
        try:
            routed = front.routed_http2(tuple(event.headers or ()), is_over=is_over)
        except Malformed:
            self._refuse(stream)
            return
        except Refused as refused:
            stream.answer_alone(refused.refusal.status, DropReason(refused.refusal.name.lower()))
            return
        if routed.is_misdirected or self.asked != front.admitter.asked:
            stream.answer_alone(421, DropReason.MISDIRECTED)
            return
        if routed.service is None or routed.prepared is None:
            stream.answer_alone(404, DropReason.NO_ROUTE)
            return
        self.loop.expire_by(self, self.loop.now_s + routed.service.look_after_s)
        stream.begin(routed.service, routed.prepared)

    def _refuse(self, stream: Http2Stream) -> None:
        """Reset a stream whose fields are malformed (RFC 9113, section 8.1.1)."""
        self._carried.drop(DropReason.HTTP2_ERROR)
        if not stream.has_ended:
            self._h2.reset_stream(stream.number, PROTOCOL_ERROR)
        stream.gone()
        self._reader.reset(self.loop.now_s)

    def _on_data(self, event: Event) -> None:
        assert isinstance(event, DataReceived)
        number, size = event.stream_id, event.flow_controlled_length or 0
        assert number is not None
        stream = self._streams.get(number)
        if stream is not None:
            stream.received(event.data or b"", size)
        elif size:
            self._h2.acknowledge_received_data(size, number)

    def _on_trailers(self, event: Event) -> None:
        assert isinstance(event, TrailersReceived)
        stream = self._streams.get(event.stream_id or 0)
        if stream is None:
            return
        try:
            stream.trailed(read_trailers(event.headers or ()))
        except Malformed:
            self._refuse(stream)

    def _on_end(self, event: Event) -> None:
        assert isinstance(event, StreamEnded)
        stream = self._streams.get(event.stream_id or 0)
        if stream is not None:
            stream.request_ended()

    def _on_reset(self, event: Event) -> None:
        assert isinstance(event, StreamReset)
        if not event.remote_reset:
            self._reader.reset(self.loop.now_s)
        stream = self._streams.get(event.stream_id or 0)
        if stream is not None:
            stream.gone()

    def _on_window(self, event: Event) -> None:
        assert isinstance(event, WindowUpdated)
        if event.stream_id:
            stream = self._streams.get(event.stream_id)
            if stream is not None and stream.has_more:
                self.queue(stream)
        elif self._queue:
            self.flush_soon()

    def _on_settings(self, event: Event) -> None:
        assert isinstance(event, RemoteSettingsChanged)
        for stream in self._streams.values():
            if stream.has_more:
                self.queue(stream)

    def _on_ping_answer(self, event: Event) -> None:
        assert isinstance(event, PingAckReceived)
        if self._drain_due_s and event.ping_data == _DRAIN_PING:
            self._say_last()

    def _ended(self) -> None:
        """Handle the end of what the client sends: who reads no answer needs none, and a half-open HTTP/2 is none."""
        self.readable = False
        self.close()

    # Writing.

    def _speak(self) -> None:
        self._is_due = False
        if self.closed:
            return
        if not self._is_lingering:
            self._send_waiting()
        data = self._h2.data_to_send() or b""
        if self._said:
            data, self._said = self._said + data, b""
        if data:
            self.write(data)
        if self.closed:
            return
        if self._is_lingering:
            if not self.unsent:
                self._shut_down()
        elif not self._streams and (self._last_number != _ANY_STREAM or self._reader.has_said_goodbye):
            self._linger()
        elif self._queue and not self.unsent and self._h2.outbound_flow_control_window > 0:
            self.flush_soon()

    def _send_waiting(self) -> None:
        """Have each stream send a frame, in turn, until nobody has more, or may send more."""
        queue, h2 = self._queue, self._h2
        room = MOST_WAITING - self.unsent
        for _ in range(len(queue) + room // MOST_FRAME_BYTES):
            if not queue or room <= 0:
                return
            stream = queue[0]
            if not stream.has_more:
                queue.popleft()
                stream.is_queued = False
                continue
            most = min(h2.max_outbound_frame_size, MOST_FRAME_BYTES)
            if stream.unsent:
                if h2.outbound_flow_control_window <= 0:
                    return
                most = min(most, h2.local_flow_control_window(stream.number))
            queue.popleft()
            if most > 0:
                room -= stream.send_frame(most)
                if stream.has_more:
                    queue.append(stream)
                    continue
            stream.is_queued = False

    # Ending.

    def _say_goodbye(self, last: int, code: int) -> None:
        frame = GoAwayFrame(0, last_stream_id=last, error_code=code)
        self._said += (self._h2.data_to_send() or b"") + frame.serialize()
        self.flush_soon()

    def _say_last(self) -> None:
        """Make the second step of a drain."""
        if self._last_number == _ANY_STREAM:
            self._last_number = self._h2.highest_inbound_stream_id
            self._say_goodbye(self._last_number, NO_ERROR)
        self._drain_due_s = float("inf")

    def _end(self, code: int, reason: DropReason | None) -> None:
        """Say why, and close; streams end with it."""
        if self.closed or self._is_lingering:
            return
        if reason is not None:
            self._carried.drop(reason)
        self._say_goodbye(self._h2.highest_inbound_stream_id, code)
        self._linger()

    def _linger(self) -> None:
        """Have what is said sent, and what still comes thrown away, so that the client reads our last words."""
        self._is_lingering = True
        self._forget_streams()
        self.loop.expire_at(self, self.loop.now_s + _LINGER_S)
        self.flush_soon()

    def _shut_down(self) -> None:
        try:
            self.end_writing()
        except OSError:
            self.close()
            return
        self.read_to_forget()
        if self.readable:
            self.loop.again(self._read_again)

    def _forget_streams(self) -> None:
        for stream in tuple(self._streams.values()):
            stream.gone()
        self._streams.clear()
        self._queue.clear()


def _new_h2(front: Front, encoder: ReadyEncoder) -> H2Connection:
    http = front.owner.http
    has_websocket = any(service.carried.work.service.websocket for service in front.members)
    values = {
        SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
        SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        SettingCodes.MAX_HEADER_LIST_SIZE: http.max_header_bytes + 32 * http.max_headers,
    }
    if has_websocket:
        values[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
    connection = H2Connection(_CONFIG)
    connection.encoder = encoder
    # Twice of what is said: whoever asks for a little too much is told so, not thrown out.
    connection.decoder = RememberingDecoder(2 * (http.max_header_bytes + 32 * http.max_headers))
    connection.local_settings = Settings(client=False, initial_values=values)
    connection.initiate_connection()
    connection.increment_flow_control_window(CONNECTION_WINDOW - 65535)
    # h2 ends the connection of whoever opens one stream too many; we refuse the stream.
    values[SettingCodes.MAX_CONCURRENT_STREAMS] = 2 * MOST_STREAMS
    connection.local_settings = Settings(client=False, initial_values=values)
    return connection
