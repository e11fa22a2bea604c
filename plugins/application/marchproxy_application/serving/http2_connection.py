"""A client's connection in HTTP/2: streams side by side, answered as they are ready, each held to its windows.

h2 knows the protocol's states; what it has to say is written once a turn of the loop, however many streams had
something. Frames are looked at before h2 sees them (``http2/frames.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from marchproxy_application.http1.writing import origin_lines
from marchproxy_application.http2.frames import FrameReader
from marchproxy_application.serving.http2_incoming import Ended, Incoming
from marchproxy_application.serving.http2_outgoing import Outgoing
from marchproxy_application.serving.http2_protocol import (
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    ServerConnection,
)
from marchproxy_application.streams import MOST_WAITING, Stream
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from socket import SocketType

    from marchproxy_application.serving.admitting import Admission
    from marchproxy_application.serving.front import Front
    from marchproxy_application.serving.http1_connection import Http1Connection
    from marchproxy_application.serving.http2_stream import Http2Stream
    from marchproxy_core.config import Settings as ProxySettings
    from marchproxy_core.relay.accepting import Address

_ANY_STREAM: Final = (1 << 31) - 1
_DRAIN_STEP_S: Final = 1.0
_DRAIN_PING: Final = b"draining"
_MOST_READS: Final = 8
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 1 << 20
_BROKEN: Final = 0x008 | 0x010  # EPOLLERR | EPOLLHUP


@final
class Http2Connection(Stream):
    """A client that was let in and speaks HTTP/2; counted as open until it is closed."""

    __slots__ = (
        "_carried",
        "_drain_due_s",
        "_h2",
        "_idle_since_s",
        "_incoming",
        "_is_due",
        "_is_lingering",
        "_lingered",
        "_origin",
        "_origin_host",
        "_reader",
        "_within_since_s",
        "address",
        "asked",
        "front",
        "last_number",
        "outgoing",
        "peer",
        "port",
        "proxied",
        "scheme",
        "settings",
        "streams",
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
        self.streams: dict[int, Http2Stream] = {}
        self._is_due = False
        self._is_lingering = False
        self._lingered = 0
        self._drain_due_s = 0.0
        """Until when the second step of a drain may wait; 0: no drain."""
        self.last_number = _ANY_STREAM
        """The last stream that is served."""
        self._idle_since_s = self._within_since_s = self.loop.now_s
        self._origin_host: bytes | None = None
        self._origin = b""
        http = front.owner.http
        has_websocket = any(service.carried.work.service.websocket for service in front.members)
        self._reader = FrameReader(2 * http.max_header_bytes)
        self._h2 = ServerConnection(http, websocket=has_websocket)
        self._incoming = Incoming(self, self._h2, self._reader)
        self.outgoing: Outgoing = Outgoing(self._h2, self._reader, self.speak_soon)

    def start(self, early: bytes = b"") -> None:
        """Say our settings, and read what has come already; the connection is counted by whoever let it in."""
        self.loop.expire_at(self, self.loop.now_s + self.settings.read_timeout)
        self.speak_soon()
        if early:
            self._received(early)
        if self.readable:
            self.loop.again(self._read_again)

    def take_over(self, before: Http1Connection) -> None:
        """Go on with the socket of a connection that began with the preface of HTTP/2; that one forgets it."""
        self._carried = before.carried
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
        self.speak_soon()
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
            due_s = min(due_s, self._drain_due_s)
        if self._reader.is_within:
            due_s = min(due_s, self._within_since_s + settings.read_timeout)
            if now_s >= due_s:
                self._end(ENHANCE_YOUR_CALM, DropReason.READ_TIMEOUT)
                return now_s + _LINGER_S
        if not self.streams:
            due_s = min(due_s, self._idle_since_s + settings.keep_alive_timeout)
            if now_s >= due_s:
                self._end(NO_ERROR, None)
                return now_s + _LINGER_S
        for stream in tuple(self.streams.values()):
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

    def abandon(self, stream: Http2Stream, code: int, reason: DropReason) -> None:
        """Reset a stream for its client's fault, and end its exchange."""
        self._carried.drop(reason)
        stream.reset(code)
        stream.gone()

    def leave(self, stream: Http2Stream) -> None:
        """Forget a stream that is over; what its client still sends is of no use to anybody."""
        if self.streams.pop(stream.number, None) is None:
            return
        if not stream.request_over:
            stream.request_over = True
            self.outgoing.reset(stream.number, NO_ERROR)  # RFC 9113, section 8.1
        if not self.streams:
            self._idle_since_s = self.loop.now_s
        self.speak_soon()

    def speak_soon(self) -> None:
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
        if self._drain_due_s or self.is_ending:
            return
        self._drain_due_s = self.loop.now_s + _DRAIN_STEP_S
        self.outgoing.goodbye(_ANY_STREAM, NO_ERROR)
        self._h2.ping(_DRAIN_PING)
        for stream in tuple(self.streams.values()):
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
            if self._incoming.received(data):
                self._within_since_s = now_s
        except Ended as ended:
            self._end(ended.code, ended.reason)
        if self._reader.is_within and not self.is_ending:
            self.loop.expire_by(self, self._within_since_s + self.settings.read_timeout)
        self.speak_soon()

    def _ended(self) -> None:
        """Handle the end of what the client sends: who reads no answer needs none, and a half-open HTTP/2 is none."""
        self.readable = False
        self.close()

    # Writing.

    def _speak(self) -> None:
        self._is_due = False
        if self.closed:
            return
        data = self.outgoing.gather(MOST_WAITING - self.unsent)
        if data:
            self.write(data)
        if self.closed:
            return
        if self.outgoing.has_failed:
            self._end(INTERNAL_ERROR, DropReason.HTTP2_ERROR)
        if self._is_lingering:
            if not self.unsent and not self._is_due:
                self._shut_down()
        elif not self.streams and (self.last_number != _ANY_STREAM or self._reader.has_said_goodbye):
            self._linger()
        elif not self.unsent and self.outgoing.may_go_on:
            self.speak_soon()

    # Ending.

    @property
    def is_ending(self) -> bool:
        """Whether nothing that comes is of any meaning any more."""
        return self.closed or self._is_lingering

    def pinged(self, data: bytes) -> None:
        """Take note of the answer to a ping: who has answered that of a drain has seen the GOAWAY before it."""
        if self._drain_due_s and data == _DRAIN_PING:
            self._say_last()

    def _say_last(self) -> None:
        """Make the second step of a drain."""
        if self.last_number == _ANY_STREAM:
            self.last_number = self._h2.highest_inbound_stream_id
            self.outgoing.goodbye(self.last_number, NO_ERROR)
        self._drain_due_s = float("inf")

    def _end(self, code: int, reason: DropReason | None) -> None:
        """Say why, and close; streams end with it."""
        if self.is_ending:
            return
        if reason is not None:
            self._carried.drop(reason)
        self.outgoing.goodbye(self._h2.highest_inbound_stream_id, code)
        self._linger()

    def _linger(self) -> None:
        """Have what is said sent, and what still comes thrown away, so that the client reads our last words."""
        self._is_lingering = True
        self._forget_streams()
        self.loop.expire_at(self, self.loop.now_s + _LINGER_S)
        self.speak_soon()

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
        self.outgoing.forget()
        for stream in tuple(self.streams.values()):
            stream.gone()
        self.streams.clear()
