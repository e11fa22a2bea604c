"""Both ends of the tier in HTTP/2 tests: a backend that shows what it was asked, a client of h2, and frames by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import h2.config
import h2.connection
import h2.events
import h11
import hpack
import trio
from h2.settings import SettingCodes
from h2.settings import Settings as H2Settings
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from marchproxy_application import plugin
from marchproxy_application.http2.frames import PREFACE
from marchproxy_core.config import Settings
from marchproxy_core.services import Http
from marchproxy_core.testing import Subject, open_loopback_wire
from marchproxy_core.testing.laws.traffic import service_for
from marchproxy_core.testing.servers import tcp_server

CHUNK_BYTES = 65536
GET = (
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"example.com"),
    (b":path", b"/"),
)
CONNECT = ((b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket"))


@attrs.define
class Asked:
    """A request as the backend got it."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = attrs.field(factory=list)

    def get(self, name):
        return next((value for each, value in self.fields if each == name), None)


Answer = Callable[[Asked, trio.SocketStream], Awaitable[None]]


async def echo(asked, stream):
    """Answer with the request's own body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(asked.body)
    await stream.send_all(head + (b"" if asked.method == b"HEAD" else asked.body))


def saying(data):
    """Make a backend that answers each request with these bytes."""

    async def answer(asked, stream):
        del asked
        await stream.send_all(data)

    return answer


@asynccontextmanager
async def origin(wire, answer=echo):
    """Run a backend of HTTP/1.1; yields how a service names it, and the requests that it got."""
    requests = []

    async def serve(stream):
        try:
            while (asked := await _read(stream)) is not None:
                requests.append(asked)
                await answer(asked, stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return  # either side may end as it likes, within a body, too

    async with tcp_server(wire, serve=serve) as server:
        yield server.backend, requests


async def _read(stream):
    reader = h11.Connection(h11.SERVER)
    asked = None
    while True:
        event = reader.next_event()
        if event is h11.NEED_DATA:
            reader.receive_data(await stream.receive_some(CHUNK_BYTES))
        elif isinstance(event, h11.Request):
            asked = Asked(event.method, event.target, list(event.headers))
            if asked.get(b"upgrade") or asked.get(b"x-read-by-hand"):
                asked.body = reader.trailing_data[0]
                return asked
        elif isinstance(event, h11.Data):
            asked.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            asked.trailers = list(event.headers)
            return asked
        else:
            return None


@attrs.frozen(kw_only=True)
class Serving:
    """A tier that runs for one service."""

    wire: object
    service: object
    running: object
    requests: list[Asked]

    @asynccontextmanager
    async def client(self, **options):
        async with await self.wire.connect(self.service.listen[0]) as stream:
            client = Client(stream, **options)
            await client.begin()
            yield client

    @asynccontextmanager
    async def raw(self, *, begun=True):
        async with await self.wire.connect(self.service.listen[0]) as stream:
            raw = Raw(stream)
            if begun:
                await raw.begin()
            yield raw

    async def drops(self):
        """Return how often something was dropped, by reason."""
        stats = await self.running.stats_of(self.service)
        return {str(reason): count for reason, count in stats.drops.items() if count}


@asynccontextmanager
async def serving(answer=echo, *, http=None, settings=None, **service):
    """Run the tier with one worker and one backend.

    Args:
        answer: What the backend does with each request.
        http: The service's wishes.
        settings: The operator's.
        service: More attributes of the service.
    """
    subject = await Subject.of(plugin, settings or Settings(worker_threads=1))
    async with open_loopback_wire() as wire, origin(wire, answer) as (backend, requests):
        one = attrs.evolve(service_for(wire, backend), http=http or Http(), **service)
        async with subject.running(one) as running:
            yield Serving(wire=wire, service=one, running=running, requests=requests)


@attrs.define
class Answered:
    """An answer as a client got it."""

    status: int = 0
    fields: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    body: bytearray = attrs.field(factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    interim: list[int] = attrs.field(factory=list)
    is_over: bool = False
    reset: int | None = None

    def get(self, name):
        return next((value for each, value in self.fields if each == name), None)


class Client:
    """A client made of h2; opens its windows as it reads unless told not to."""

    def __init__(self, stream, *, reads=True, window=None):
        self.stream = stream
        self.reads = reads
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        if window is not None:
            values = {SettingCodes.INITIAL_WINDOW_SIZE: window}
            self.h2.local_settings = H2Settings(client=True, initial_values=values)
        self.answers = {}
        self.settings = {}
        self.goodbye = None

    async def begin(self):
        self.h2.initiate_connection()
        await self.flush()
        while not self.settings:
            await self.hear()

    async def ask(self, *fields, head=GET, body=None, ends=True):
        """Send a request's head, and its body if there is one; return the number of its stream."""
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, [*head, *fields], end_stream=ends and body is None)
        self.answers[number] = Answered()
        if body is not None:
            await self.send(number, body, ends=ends)
        await self.flush()
        return number

    async def send(self, number, data, *, ends=False):
        """Send all of it, as the proxy opens its windows."""
        at = 0
        while at < len(data) and self.answers[number].reset is None:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                await self.hear()
                continue
            self.h2.send_data(number, data[at : at + room])
            at += room
            await self.flush()
        if ends:
            self.h2.end_stream(number)
            await self.flush()

    async def answer(self, number):
        """Return the whole answer of a stream."""
        answer = self.answers[number]
        while not answer.is_over and answer.reset is None:
            await self.hear()
        return answer

    async def get(self, *fields, **options):
        return await self.answer(await self.ask(*fields, **options))

    async def until(self, condition):
        while not condition():
            await self.hear()

    async def flush(self):
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def hear(self):
        data = await self.stream.receive_some(CHUNK_BYTES)
        if not data:
            raise EOFError("the proxy closed the connection")
        for event in self.h2.receive_data(data):
            self._heard(event)
        await self.flush()

    def _heard(self, event):
        answer = self.answers.get(getattr(event, "stream_id", None))
        match event:
            case h2.events.RemoteSettingsChanged():
                self.settings.update({code: one.new_value for code, one in event.changed_settings.items()})
            case h2.events.InformationalResponseReceived():
                answer.interim.append(int(dict(event.headers)[b":status"]))
            case h2.events.ResponseReceived():
                answer.status = int(dict(event.headers)[b":status"])
                answer.fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            case h2.events.DataReceived():
                answer.body += event.data
                if self.reads and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                answer.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
            case h2.events.StreamEnded():
                answer.is_over = True
            case h2.events.StreamReset():
                answer.reset = event.error_code
            case h2.events.ConnectionTerminated():
                self.goodbye = event


class Raw:
    """Frames by hand: what no library sends, and everything that comes back."""

    def __init__(self, stream):
        self.stream = stream
        self.frames = []
        self.buffer = b""
        self.has_ended = False
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()

    async def begin(self, settings=None):
        await self.send(PREFACE, SettingsFrame(0, settings=settings or {}))
        await self.send(SettingsFrame(0, flags=["ACK"]))

    async def send(self, *frames):
        """Send frames, or bytes as they are; a proxy that has closed already does not mind."""
        data = b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames)
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            self.has_ended = True

    def head(self, number, fields=GET, *, ends=True, **options):
        """Return a HEADERS frame with a whole block."""
        flags = ["END_HEADERS", *(["END_STREAM"] if ends else []), *options.pop("flags", [])]
        return HeadersFrame(number, data=self.encoder.encode(list(fields)), flags=flags, **options)

    async def next(self):
        """Return the next frame; None at the end."""
        while True:
            if len(self.buffer) >= 9:
                frame, length = Frame.parse_frame_header(memoryview(self.buffer[:9]))
                if len(self.buffer) >= 9 + length:
                    frame.parse_body(memoryview(self.buffer[9 : 9 + length]))
                    self.buffer = self.buffer[9 + length :]
                    return frame
            try:
                data = await self.stream.receive_some(CHUNK_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self.has_ended = True
                return None
            self.buffer += data

    async def until(self, kind, *, number=None, flag=None):
        """Return the next frame of a kind, or of one of several."""
        while (frame := await self.next()) is not None:
            if (
                isinstance(frame, kind)
                and (number is None or frame.stream_id == number)
                and (flag is None or flag in frame.flags)
            ):
                return frame
            assert not isinstance(frame, (GoAwayFrame, RstStreamFrame)), f"{frame!r} in place of {kind}"
        raise AssertionError(f"the connection ended in place of {kind}")

    async def status(self, number=1):
        """Return the status that a stream is answered with."""
        frame = await self.until(HeadersFrame, number=number)
        return int(dict(self.decoder.decode(frame.data, raw=True))[b":status"])

    async def connection_error(self):
        """Return the code of the GOAWAY that ends the connection; the end must follow."""
        frame = await self.until(GoAwayFrame)
        while await self.next() is not None:
            continue
        return frame.error_code

    async def stream_error(self, number=1):
        """Return the code that a stream is reset with."""
        return (await self.until(RstStreamFrame, number=number)).error_code
