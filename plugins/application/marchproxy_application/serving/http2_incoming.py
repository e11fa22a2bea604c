"""What one connection of HTTP/2 hears: bytes become frames, h2's events, and what streams are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

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

from marchproxy_application.http1.refusals import Refused
from marchproxy_application.http2.frames import BadFrame, Flood
from marchproxy_application.http2.heads import Malformed, read_trailers
from marchproxy_application.serving.http2_protocol import (
    ENHANCE_YOUR_CALM,
    MOST_STREAMS,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
)
from marchproxy_application.serving.http2_stream import Http2Stream
from marchproxy_core.drops import DropReason

if TYPE_CHECKING:
    from marchproxy_application.http2.frames import FrameReader
    from marchproxy_application.serving.http2_connection import Http2Connection
    from marchproxy_application.serving.http2_protocol import ServerConnection


class Ended(Exception):
    """The client has sent what ends the connection."""

    def __init__(self, code: int, reason: DropReason) -> None:
        """Keep what the client is told (RFC 9113, section 7), and what is counted."""
        super().__init__(reason.value)
        self.code = code
        self.reason = reason


@final
class Incoming:
    """Tells a connection's streams what comes for them."""

    __slots__ = ("_connection", "_h2", "_handlers", "_reader")

    def __init__(self, connection: Http2Connection, h2: ServerConnection, reader: FrameReader) -> None:
        """Expect the preface."""
        self._connection = connection
        self._h2 = h2
        self._reader = reader
        self._handlers: dict[type[Event], Callable[[Event], None]] = {
            RequestReceived: self._on_request,
            DataReceived: self._on_data,
            TrailersReceived: self._on_trailers,
            StreamEnded: self._on_end,
            WindowUpdated: self._on_window,
            RemoteSettingsChanged: self._on_settings,
            PingAckReceived: self._on_ping_answer,
        }

    def received(self, data: bytes) -> bool:
        """Handle what has come; return whether there was a whole frame in it.

        Raises:
            Ended: It ends the connection.
        """
        try:
            whole = self._reader.feed(data, self._connection.loop.now_s)
            if whole:
                self._handle(self._h2.receive_data(whole))
        except (Flood, DenialOfServiceError) as error:
            raise Ended(ENHANCE_YOUR_CALM, DropReason.HTTP2_FLOOD) from error
        except BadFrame as error:
            raise Ended(error.code, DropReason.HTTP2_ERROR) from error
        except ProtocolError as error:
            self._h2.clear_outbound_data_buffer()  # its GOAWAY: ours says the same
            raise Ended(int(error.error_code), DropReason.HTTP2_ERROR) from error
        return bool(whole)

    def _handle(self, events: list[Event]) -> None:
        # h2 has gone through all frames already. To a stream that was reset in one of them nothing can be said any
        # more, so that it is forgotten before what came for it earlier; its request is not even begun.
        reset = {event.stream_id for event in events if isinstance(event, StreamReset)}
        if reset:
            self._forget(events)
        connection = self._connection
        for event in events:
            handler = self._handlers.get(type(event))
            if handler is None:
                continue
            if reset and isinstance(event, RequestReceived) and event.stream_id in reset:
                continue
            handler(event)
            if connection.is_ending:
                return

    def _forget(self, events: list[Event]) -> None:
        streams = self._connection.streams
        begun = {event.stream_id for event in events if isinstance(event, RequestReceived)}
        for event in events:
            if isinstance(event, StreamReset):
                stream = streams.get(event.stream_id or 0)
                if not event.remote_reset and (stream is not None or event.stream_id in begun):
                    self._reader.reset(self._connection.loop.now_s)
                if stream is not None:
                    stream.gone()

    def _on_request(self, event: Event) -> None:
        assert isinstance(event, RequestReceived)
        connection, number = self._connection, event.stream_id
        assert number is not None
        if len(connection.streams) >= MOST_STREAMS or number > connection.last_number:
            connection.outgoing.reset(number, REFUSED_STREAM)
            self._reader.reset(connection.loop.now_s)
            return
        is_over = event.stream_ended is not None
        stream = connection.streams[number] = Http2Stream(connection, number, request_over=is_over)
        front = connection.front
        try:
            routed = front.routed_http2(tuple(event.headers or ()), is_over=is_over)
        except Malformed:
            self._refuse(stream)
            return
        except Refused as refused:
            stream.answer_alone(refused.refusal.status, DropReason(refused.refusal.name.lower()))
            return
        if routed.is_misdirected or connection.asked != front.admitter.asked:
            stream.answer_alone(421, DropReason.MISDIRECTED)
        elif routed.service is None or routed.prepared is None:
            stream.answer_alone(404, DropReason.NO_ROUTE)
        else:
            connection.loop.expire_by(connection, connection.loop.now_s + routed.service.look_after_s)
            stream.begin(routed.service, routed.prepared)

    def _refuse(self, stream: Http2Stream) -> None:
        """Reset a stream whose fields are malformed (RFC 9113, section 8.1.1)."""
        self._connection.abandon(stream, PROTOCOL_ERROR, DropReason.HTTP2_ERROR)
        self._reader.reset(self._connection.loop.now_s)

    def _on_data(self, event: Event) -> None:
        assert isinstance(event, DataReceived)
        number, size = event.stream_id, event.flow_controlled_length or 0
        assert number is not None
        stream = self._connection.streams.get(number)
        if stream is not None:
            stream.received(event.data or b"", size)
        else:
            self._connection.outgoing.acknowledge(number, size)

    def _on_trailers(self, event: Event) -> None:
        assert isinstance(event, TrailersReceived)
        stream = self._connection.streams.get(event.stream_id or 0)
        if stream is None:
            return
        try:
            stream.trailed(read_trailers(event.headers or ()))
        except Malformed:
            self._refuse(stream)

    def _on_end(self, event: Event) -> None:
        assert isinstance(event, StreamEnded)
        stream = self._connection.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.request_ended()

    def _on_window(self, event: Event) -> None:
        assert isinstance(event, WindowUpdated)
        connection = self._connection
        stream = connection.streams.get(event.stream_id or 0)
        if stream is not None and stream.has_more:
            connection.outgoing.queue(stream)
        elif not event.stream_id and connection.outgoing.may_go_on:
            connection.speak_soon()

    def _on_settings(self, event: Event) -> None:
        del event
        for stream in self._connection.streams.values():
            if stream.has_more:
                self._connection.outgoing.queue(stream)

    def _on_ping_answer(self, event: Event) -> None:
        assert isinstance(event, PingAckReceived)
        self._connection.pinged(event.ping_data or b"")
