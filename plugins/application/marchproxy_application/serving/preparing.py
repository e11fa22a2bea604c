"""What of a request and an answer is the same each time the same head comes, worked out once. Pure.

Programs send the same heads over and over, and servers answer with the same ones for as long as Date stands still. A
front remembers the one and a service the other, by their bytes; so a head that is known is not read, judged, routed
and written again. What is of one request alone is added to it: where it came from, its id, what a token says.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import attrs

from marchproxy_application.cache.stored import Stored
from marchproxy_application.http1.fields import Field, Kind
from marchproxy_application.http1.request import RequestHead
from marchproxy_application.http1.response import ResponseHead
from marchproxy_application.http1.writing import (
    CHUNKED,
    lines_of,
    passed_on,
    request_start,
    status_line,
    via_line,
)
from marchproxy_core.routing.paths import normal
from marchproxy_core.services import Compression, HeaderRules

if TYPE_CHECKING:
    from marchproxy_core.services import Http

VIA: Final = b"marchproxy"
LONGEST_REMEMBERED: Final = 1024
_MOST_REMEMBERED: Final = 1024
_MOST_SEEN: Final = 4096
_LONGEST_LOGGED: Final = 1024
_NO_RULES: Final = HeaderRules()

V = TypeVar("V")


@final
class Memory(Generic[V]):
    """Remembers what was worked out, by bytes, from the second time on; bounded, and emptied as a whole when full.

    Of a head that comes once only its hash is kept: what is made of it is large, and would push what does come again
    out of the processor's caches.
    """

    __slots__ = ("_known", "_seen", "get")

    def __init__(self) -> None:
        """Know nothing."""
        self._known: dict[bytes, V] = {}
        self._seen: set[int] = set()
        self.get = self._known.get

    def keep(self, key: bytes, value: V) -> None:
        """Remember, unless it is too long to come twice, or came for the first time."""
        if len(key) > LONGEST_REMEMBERED:
            return
        mark = hash(key)
        if mark not in self._seen:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = value

    def forget(self) -> None:
        """Forget everything, since what it was worked out from has changed."""
        self._known.clear()


@attrs.define(eq=False, kw_only=True)
class PreparedRequest:
    """A request as it goes to a backend, but for what is of this one request alone."""

    head: RequestHead
    path: bytes
    """As the client meant it: in normal form, with its query."""
    host: bytes
    """That the backend is told."""
    backend_path: bytes
    fields: list[Field]
    """Those passed on, rules applied."""
    start: bytes
    """The head of HTTP/1.1 up to where it came from."""
    via: bytes
    """The line of Via, which ``start`` ends with."""
    upgrade: bytes
    """The protocol that is asked for, where that is passed on."""
    route: bytes
    """Host and path of its route."""
    log_part: str
    """What the access log says of it each time."""
    last_hit: LastHit | None = attrs.field(default=None, init=False)
    """What the cache last answered to it, as long as that was a plain hit."""


@attrs.frozen(eq=False)
class LastHit:
    """A stored response, and how it is sent."""

    stored: Stored
    answer: PreparedAnswer
    body: bytes


def prepare_request(
    head: RequestHead,
    http: Http,
    *,
    prefix: bytes,
    websocket: bool,
    owned: frozenset[bytes],
    host: bytes = b"*",
    major: int = 1,
    default_host: bytes = b"",
) -> PreparedRequest:
    """Work out what a backend gets.

    Args:
        head: As the client sent it.
        http: The service's wishes.
        prefix: The path of its route.
        websocket: Whether an upgrade to WebSocket may be passed on.
        owned: Names of fields that only we may set.
        host: The host of its route.
        major: Of the version that it came in.
        default_host: What a backend is told where the client named no host, as HTTP/1.0 allows.
    """
    path = head.path if head.path == b"*" else normal(head.path)
    route = host + prefix
    host = http.host_header.encode("latin-1") if http.host_header else head.host or default_host
    rules = None if http.request_headers == _NO_RULES else http.request_headers
    fields = passed_on(head.fields, head.dropped | owned, rules)
    backend_path = _stripped(path, prefix) if http.strip_path and path != b"*" else path
    upgrade = head.upgrade if websocket and head.upgrade == b"websocket" else b""
    counted = head.length or any(field.kind == Kind.LENGTH for field in head.fields)
    via = via_line(head.fields, head.minor if major == 1 else major, VIA)
    start = request_start(
        method=head.method,
        path=backend_path,
        host=host,
        fields=fields,
        length=head.length if counted and not head.is_chunked else None,
        chunked=head.is_chunked,
        upgrade=upgrade,
        waits=head.waits,
    )
    return PreparedRequest(
        head=head,
        path=path,
        host=host,
        backend_path=backend_path,
        fields=fields,
        start=start + via,
        via=via,
        upgrade=upgrade,
        route=route,
        log_part=_log_part(head, path, route),
    )


@attrs.define(eq=False, kw_only=True)
class PreparedAnswer:
    """An answer as clients get it, but for what is of this one alone."""

    head: ResponseHead
    fields: list[Field]
    """Those passed on, rules applied; Content-Length is one of them where it says the truth."""
    start: bytes
    """Status line, fields and Via, of HTTP/1.1."""
    is_delimited: bool
    """Whether its end is known without chunks and without closing the connection."""
    start_chunked: bytes
    """The same with Transfer-Encoding, for who can read it."""
    via: bytes = b""
    """The line of Via in ``start``."""
    coded: dict[Compression | None, PreparedAnswer] = attrs.field(factory=dict, init=False)
    """The same with a content coding, or told that there could be one."""


def prepare_answer(head: ResponseHead, rules: HeaderRules, *, keeps_length: bool = True) -> PreparedAnswer:
    """Work out what a client gets.

    Args:
        head: As the backend sent it.
        rules: The service's wishes.
        keeps_length: Whether the body stays as long as it is.
    """
    fields = passed_on(head.fields, head.dropped, None if rules == _NO_RULES else rules)
    # Also of an answer to HEAD, and of a 304: there it says what another answer would have.
    if not head.is_chunked and keeps_length and head.status >= 200 and head.status != 204:
        fields += [field for field in head.fields if field.kind == Kind.LENGTH][:1]
    via = via_line(head.fields, head.minor, VIA)
    upgrade = b"Connection: upgrade\r\nUpgrade: %b\r\n" % head.upgrade if head.status == 101 else b""
    start = b"".join(
        [
            status_line(head.status, head.reason),
            lines_of(fields),
            via,
            upgrade,
        ]
    )
    is_delimited = head.length is not None and keeps_length
    return PreparedAnswer(
        head=head,
        fields=fields,
        start=start,
        is_delimited=is_delimited,
        start_chunked=start if is_delimited else start + CHUNKED,
        via=via,
    )


def _log_part(head: RequestHead, path: bytes, route: bytes) -> str:
    asked = f'"method": {_quoted(head.method)}, "host": {_quoted(head.host)}, "path": {quoted(path)}'
    return f'{asked}, "route": {_quoted(route)}'


def quoted(text: bytes) -> str:
    """Return text as a JSON string, ASCII alone and nothing that a terminal obeys; cut off where it is very long."""
    if len(text) > _LONGEST_LOGGED:
        text = text[:_LONGEST_LOGGED] + b"..."
    return json.dumps(text.decode("latin-1")).replace("\x7f", "\\u007f")


_quoted = lru_cache(_MOST_REMEMBERED)(quoted)


def _stripped(path: bytes, prefix: bytes) -> bytes:
    rest = path[len(prefix.rstrip(b"/")) :]
    return rest if rest.startswith(b"/") else b"/" + rest
