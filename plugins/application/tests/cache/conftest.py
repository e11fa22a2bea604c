"""A client, a cache and a backend that answers as it is told, with a clock that stands until it is moved."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from marchproxy_application.cache.answers import Answer, Bypass, Fetch, GatewayTimeout, Hit, Validate, Wait
from marchproxy_application.cache.dates import format_date
from marchproxy_application.cache.http_cache import HttpCache
from marchproxy_application.cache.messages import Request, make_field
from marchproxy_application.cache.saving import Saving

Fields = list[tuple[bytes, bytes]]
Response = tuple[int, Fields, bytes]


@attrs.define
class Seen:
    """What a client got."""

    status: int
    fields: Fields
    body: bytes
    from_cache: bool

    def __getitem__(self, name: bytes) -> bytes | None:
        return next((value for each, value in self.fields if each == name), None)


@attrs.define
class World:
    """Does what a worker would, with nothing in between."""

    cache: HttpCache
    now_s: float = 1_800_000_000.0
    response: Response | Callable[[Request], Response] | None = None
    """What the backend answers; None: it cannot be reached."""
    asked: list[Request] = attrs.Factory(list)
    """What reached the backend."""

    def request(self, *fields: tuple[bytes, bytes], path: bytes = b"/", method: bytes = b"GET") -> Request:
        return Request(method, b"http", b"example.com", path, [make_field(*each) for each in fields])

    def date(self, offset_s: float = 0.0) -> bytes:
        return format_date(self.now_s + offset_s)

    def look(self, *fields: tuple[bytes, bytes], path: bytes = b"/", method: bytes = b"GET") -> Answer:
        return self.cache.look_up(self.request(*fields, path=path, method=method), self.now_s)

    def get(self, *fields: tuple[bytes, bytes], path: bytes = b"/", method: bytes = b"GET") -> Seen:
        request = self.request(*fields, path=path, method=method)
        return self.deliver(request, self.cache.look_up(request, self.now_s))

    def deliver(self, request: Request, answer: Answer) -> Seen:
        assert not isinstance(answer, Wait), "nobody else is asking"
        if isinstance(answer, Hit):
            if answer.refresh is not None:
                self.ask(answer.refresh)
            return seen(answer)
        if isinstance(answer, GatewayTimeout):
            return Seen(504, [], b"", from_cache=True)
        if isinstance(answer, Bypass):
            status, given, body = self.reply(request)
            self.cache.invalidate(request, status, [make_field(*each) for each in given], self.now_s)
            return Seen(status, given, body, from_cache=False)
        return self.ask(answer)

    def reply(self, request: Request) -> Response:
        self.asked.append(request)
        assert self.response is not None
        return self.response(request) if callable(self.response) else self.response

    def ask(self, fetch: Fetch) -> Seen:
        kept = [field for field in fetch.request.fields if field.name not in fetch.drops]
        request = fetch.request._replace(fields=[*kept, *fetch.fields])
        if self.response is None:
            self.asked.append(request)
            stale = self.cache.stale(fetch, self.now_s) if isinstance(fetch, Validate) else None
            if stale is not None:
                return seen(stale)
            self.cache.abandon(fetch, self.now_s, failed=True)
            return Seen(502, [], b"", from_cache=False)
        status, given, body = self.reply(request)
        fields = [make_field(*each) for each in given]
        times = {"request_time_s": self.now_s, "response_time_s": self.now_s}
        if isinstance(fetch, Validate):
            if status == 304:
                return seen(self.cache.freshen(fetch, fields, **times))
            stale = self.cache.stale(fetch, self.now_s, status) if status >= 500 else None
            if stale is not None:
                return seen(stale)
        saving = self.cache.begin(fetch, status, b"", fields, **times)
        if isinstance(saving, Saving):
            saving.add(body)
            saving.finish()
        return Seen(status, given, body, from_cache=False)


def seen(hit: Hit) -> Seen:
    assert b"".join(field.line for field in hit.fields) == hit.head_lines
    fields = [(field.name, field.value) for field in hit.fields]
    fields += [(b"age", b"%d" % hit.age_s), (b"cache-status", hit.cache_status)]
    return Seen(hit.status, fields, hit.body, from_cache=True)


@pytest.fixture
def world():
    return World(HttpCache())


@pytest.fixture
def make_world():
    return lambda **settings: World(HttpCache(**settings))
