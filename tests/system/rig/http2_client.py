"""A client that speaks HTTP/2: requests, and WebSockets among them (RFC 8441)."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import attrs
import h2.config
import h2.connection
import h2.events
import h2.settings
import trio
import wsproto.frame_protocol as ws
from system_rig.client import LONGEST_S, RESET
from system_rig.web_client import connect

from marchproxy_core.testing import until

_HEAD_BYTES = 9
_GOAWAY = 7  # RFC 9113, sections 4.1 and 6.8


@attrs.define(eq=False)
class Stream:
    """One request, and what has come of its answer."""

    number: int
    fields: dict[str, str] = attrs.field(factory=dict)
    body: bytearray = attrs.field(factory=bytearray)
    is_over: bool = False
    reset_code: int | None = None

    @property
    def is_done(self) -> bool:
        return self.is_over or self.reset_code is not None


@attrs.define(eq=False)
class Http2Client:
    """One connection; reads in a task of its own."""

    stream: trio.abc.Stream
    streams: dict[int, Stream] = attrs.field(factory=dict)
    goaways: list[int] = attrs.field(factory=list)
    """The last stream of each GOAWAY that came."""
    has_settings: bool = False
    is_ended: bool = False
    _h2: h2.connection.H2Connection = attrs.field(
        factory=lambda: h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    )
    _came: bytearray = attrs.field(factory=bytearray)
    _sending: trio.Lock = attrs.field(factory=trio.Lock)

    @classmethod
    async def to(
        cls, service: object, nursery: trio.Nursery, context: ssl.SSLContext | None = None
    ) -> Http2Client:
        """Connect, by ALPN or with prior knowledge, and wait for the settings."""
        client = cls(await connect(service, context))
        client._h2.initiate_connection()
        await client._flush()
        nursery.start_soon(client._read)
        await client.when(
            lambda: client.has_settings, "the first SETTINGS, which say whether WebSocket is there"
        )
        return client

    async def ask(self, path: str = "/", *, method: str = "GET", **fields: str) -> Stream:
        """Send a request without a body; the stream fills as the answer comes."""
        return await self._begin(method, path, fields, end_stream=True)

    async def open_web_socket(self, path: str = "/") -> WebSocketStream:
        """Open a WebSocket in a stream, and hear the backend's name."""
        more = {":protocol": "websocket", "sec-websocket-version": "13"}
        opened = WebSocketStream(self, await self._begin("CONNECT", path, more, end_stream=False))
        await self.when(lambda: bool(opened.stream.fields), "the answer to CONNECT")
        assert opened.stream.fields[":status"] == "200"
        opened.server = await opened.hears()
        return opened

    async def when(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it is so, or the connection has ended."""
        await until(lambda: self.is_ended or condition(), deadline_s=LONGEST_S, what=what)

    async def done(self, stream: Stream) -> Stream:
        """Wait for a stream's end, whichever."""
        await self.when(lambda: stream.is_done, "the end of a stream")
        return stream

    async def send(self, stream: Stream, data: bytes) -> None:
        """Send some of a request's body."""
        self._h2.send_data(stream.number, data)
        await self._flush()

    async def _begin(self, method: str, path: str, fields: dict[str, str], *, end_stream: bool) -> Stream:
        number = self._h2.get_next_available_stream_id()
        stream = self.streams[number] = Stream(number)
        head = {":method": method, ":scheme": "http", ":path": path, ":authority": "localhost"}
        names = {name.replace("_", "-"): value for name, value in fields.items()}
        headers = sorted((head | names).items(), key=lambda field: not field[0].startswith(":"))
        self._h2.send_headers(number, headers, end_stream=end_stream)
        await self._flush()
        return stream

    async def _flush(self) -> None:
        async with self._sending:
            await self.stream.send_all(self._h2.data_to_send())

    async def _read(self) -> None:
        try:
            while data := await self.stream.receive_some(1 << 16):
                for event in self._h2.receive_data(self._without_goaways(data)):
                    self._take(event)
                await self._flush()
        except (*RESET, trio.ClosedResourceError):
            pass
        self.is_ended = True

    def _without_goaways(self, data: bytes) -> bytes:
        """Return whole frames, but for GOAWAY: h2 takes it for the end, though open streams go on."""
        self._came += data
        kept = bytearray()
        while len(self._came) >= _HEAD_BYTES:
            end = _HEAD_BYTES + int.from_bytes(self._came[:3], "big")
            if len(self._came) < end:
                break
            frame = self._came[:end]
            del self._came[:end]
            if frame[3] == _GOAWAY:
                self.goaways.append(int.from_bytes(frame[_HEAD_BYTES : _HEAD_BYTES + 4], "big"))
            else:
                kept += frame
        return bytes(kept)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RemoteSettingsChanged():
                self.has_settings = True
            case h2.events.ResponseReceived():
                self.streams[event.stream_id].fields = dict(event.headers)
            case h2.events.DataReceived():
                self.streams[event.stream_id].body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.streams[event.stream_id].is_over = True
            case h2.events.StreamReset():
                self.streams[event.stream_id].reset_code = int(event.error_code)


@attrs.define(eq=False)
class WebSocketStream:
    """A WebSocket in a stream of HTTP/2; the same as :class:`WebSocket` otherwise."""

    client: Http2Client
    stream: Stream
    server: str = ""
    _frames: ws.FrameProtocol = attrs.field(factory=lambda: ws.FrameProtocol(client=True, extensions=[]))
    _taken: int = 0

    async def hears(self) -> str | int | None:
        """Return the next message, or the status of a Close; None at the stream's end."""
        while True:
            for frame in self._frames.received_frames():
                if frame.opcode is ws.Opcode.CLOSE:
                    return int(frame.payload[0])
                return str(frame.payload)
            await self.client.when(
                lambda: len(self.stream.body) > self._taken or self.stream.is_done, "more of a WebSocket"
            )
            data = bytes(self.stream.body[self._taken :])
            if not data:
                return None
            self._taken += len(data)
            self._frames.receive_bytes(data)

    async def echoes(self, text: str = "ping") -> bool:
        """Whether it still works, from end to end."""
        if self.stream.is_done or self.client.is_ended:
            return False
        await self.client.send(self.stream, self._frames.send_data(text, fin=True))
        return await self.hears() == text

    async def fate(self) -> int | str:
        """Wait for its end: the status of its Close, or ``reset`` or ``ended``."""
        code = await self.hears()
        if isinstance(code, int):
            return code
        assert code is None, code
        return "ended" if self.stream.is_over else "reset"
