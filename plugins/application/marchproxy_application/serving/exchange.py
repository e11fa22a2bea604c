"""One request and its answer: who may ask, which backend is asked, what is tried again, and how it ended.

A client's connection (or stream, in HTTP/2) calls ``request_…``, a backend's connection ``backend_…`` and
``answer_…``; what comes of it goes to :class:`Client` and to the backend. Whoever is faster is held: bytes wait only in
the streams, within bounds.
"""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, final

from marchproxy_application.serving.caching import Caching, answer_again
from marchproxy_application.serving.coding import Coding, coding_of
from marchproxy_application.serving.own_answers import STATUS_OF, own_answer
from marchproxy_application.serving.trying import (
    REPEATABLE_METHODS,
    RETRY_STATUS,
    may_ask_another,
    may_repeat,
)
from marchproxy_application.streams import Stream
from marchproxy_application.websocket.tunnel import Tunnel
from marchproxy_core.drops import DropReason
from marchproxy_core.services import RetryOn
from marchproxy_core.workers.ledger import RETRIES, REUSED, WEBSOCKETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marchproxy_application.backends.answerer import Answerer
    from marchproxy_application.backends.connection import BackendConnection
    from marchproxy_application.backends.http2_pool import Http2Pool
    from marchproxy_application.backends.pool import Pool
    from marchproxy_application.cache.answers import Fetch
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.client import Client
    from marchproxy_application.serving.preparing import PreparedAnswer, PreparedRequest
    from marchproxy_application.serving.service import HttpService

MOST_KEPT_BYTES = 1 << 16
"""How much of a request's body is kept, until a backend takes it and for another try."""
_CLOSING_S = 2.0
"""How long both ends of a WebSocket may take to answer its Close."""


@final
class Exchange:
    """A request, from its head to the end of its answer."""

    # Defaults stand on the class: a request sets a dozen of these, and each one that it need not set is time.
    pool: Pool | Http2Pool | None = None
    backend: Answerer | None = None
    tried: tuple[int, ...] = ()
    attempts: tuple[tuple[str, float, str], ...] = ()
    """Backend, milliseconds and outcome of each try that came to nothing."""
    holds_request = False
    """Whether the client is not to be read for now."""
    is_held = False
    """Whether the backend is not to be read for now."""
    is_over = False
    status = 0
    origin = "backend"
    """Who made the status: client, proxy, backend or cache."""
    reason: DropReason | None = None
    detail = ""
    """The cause behind the reason, for the log."""
    claims: Mapping[str, object] = MappingProxyType({})
    """What the client's token says."""
    subject = ""
    """Who the client is, as its token says."""
    more = b""
    """Field lines that only this request brings to the backend."""
    cache_status = b""
    """Field lines that only this answer brings to the client."""
    cache_outcome = ""
    """What the cache did, one of the ledger's words; empty where there is none."""
    caching: Caching | None = None
    coding: Coding | None = None
    tunnel: Tunnel | None = None
    """Of a WebSocket, after its handshake."""
    bytes_in = 0
    bytes_out = 0
    counted_in = 0
    counted_out = 0
    """How much of them the service's counters have already."""
    answer_begun = False
    _kept: bytearray | None = None
    """The body as far as it has come; None once it is too long to be sent twice."""
    trailers: tuple[Field, ...] | list[Field] = ()
    """Behind the request's body, once it is over."""
    retries = 0
    stale = 0
    """How often a connection was found to be dead, which is no fault of its backend."""

    @property
    def is_upgraded(self) -> bool:
        """Whether bytes go through as they are."""
        return self.tunnel is not None

    def __init__(self, client: Client, service: HttpService, prepared: PreparedRequest) -> None:
        """Begin with a request's head."""
        self.client = client
        self.service = service
        self.prepared = prepared
        head = prepared.head
        self.method = head.method
        self.request_id = service.next_id()
        self.began_s = self.touched_s = self._try_began_s = now_s = time.monotonic()
        self.due_s = now_s + service.request_timeout_s
        has_body = head.is_chunked or head.length > 0
        self.request_over = not has_body
        self.is_repeatable = not has_body and head.method in REPEATABLE_METHODS
        """Whether it can be sent again without asking anybody."""
        if has_body:
            self._kept = bytearray()

    # From the client.

    def start(self) -> None:
        """Look for a backend, unless the request is answered without one."""
        if self.service.admits(self):
            self.go_on()

    def go_on(self) -> None:
        """Look for an answer, now that the request may be asked."""
        service = self.service
        if not service.admits_client(self):
            return
        if service.cache is not None and not self.prepared.upgrade:
            if self.prepared.last_hit is not None and answer_again(self, service.cache):
                return
            self.caching = Caching(self, service.cache)
            if not self.caching.begin():
                return
        self.find_backend()

    def start_refresh(self, fetch: Fetch) -> None:
        """Ask the backend for what the cache wants to have anew."""
        assert self.service.cache is not None
        self.service.began(self)
        self.caching = Caching(self, self.service.cache, fetch)
        self.find_backend()

    def request_body(self, data: bytes) -> None:
        """Pass on a part of the request's body."""
        self.touched_s = self.service.loop.now_s
        self.bytes_in += len(data)
        self.service.count_bytes(self)
        if self.tunnel is not None:
            if self.backend is not None:
                self._pass_on(self.tunnel.to_backend(data))
            return
        most = self.service.http.max_body_bytes
        if most is not None and self.bytes_in > most:
            self.refuse(DropReason.BODY_TOO_LARGE)
            return
        self._pass_on(data)

    @property
    def request_sink(self) -> Stream | None:
        """Where the request's body may be spliced to; None if there is nothing yet, or something waits in it."""
        return self.backend.sink if self.backend is not None else None

    def request_spliced(self, count: int) -> None:
        """Take note of a part of the request's body that was moved already."""
        self.touched_s = self.service.loop.now_s
        self.bytes_in += count
        self.service.count_bytes(self)
        self._kept = None

    def go_away(self) -> None:
        """End a WebSocket with status 1001 as soon as its frames allow it; all else ends by itself."""
        tunnel = self.tunnel
        if tunnel is None or tunnel.is_closing or self.is_over:
            return
        self.due_s = self.service.loop.now_s + _CLOSING_S
        to_client, to_backend = tunnel.go_away()
        if to_client:
            self.client.answer_body(to_client)
        if to_backend and self.backend is not None:
            self.backend.send_body(to_backend)

    def request_end(self, trailers: list[Field]) -> None:
        """Take note that the request is whole."""
        self.request_over = True
        if self.is_over:
            return
        self.trailers = trailers = self.service.passed_on_behind(trailers) if trailers else trailers
        if self.backend is not None:
            self.backend.end_request(trailers)

    def client_drained(self) -> None:
        """Have the backend go on, since the client takes more."""
        if self.is_held:
            self.is_held = False
            if self.backend is not None:
                self.backend.resume()

    def client_gone(self) -> None:
        """End, since nobody waits for the answer any more."""
        if not self.is_over:
            self.origin = "client" if not self.status else self.origin
            self._finish(DropReason.CLIENT_GONE)

    def look(self, now_s: float) -> float:
        """Look whether time is up; return when to look again."""
        settings = self.service.carried.settings
        if self.tunnel is not None:
            is_closing = self.tunnel.is_closing
            due_s = self.due_s if is_closing else self.touched_s + settings.idle_timeout
            if now_s >= due_s:
                self._cut(None if is_closing else DropReason.IDLE_TIMEOUT)
            return due_s
        retry = self.service.http.retry
        due_s = self.due_s
        if not self.answer_begun and retry.try_timeout_s is not None:
            due_s = min(due_s, self._try_began_s + retry.try_timeout_s)
        if self.backend is not None and not self.is_held and self.request_over:
            due_s = min(due_s, self.touched_s + settings.read_timeout)
        if now_s >= due_s:
            self._too_late(now_s)
        return due_s

    # From the backend.

    def find_backend(self) -> None:
        """Pick a backend and ask it; when none is left, the client is told."""
        service = self.service
        carried = service.carried
        index = carried.pick(service.key_of(self.client) if carried.by_client else None, self.tried)
        if index is None:
            self.refuse(self.reason or DropReason.NO_BACKEND)
            return
        self.tried = (*self.tried, index)
        self.pool = pool = service.pools[index]
        carried.counts[pool.cell] += 1
        self._try_began_s = service.loop.now_s
        pool.begin(self)

    def backend_ready(self, backend: Answerer) -> None:
        """Send the request, on a connection that has room for it."""
        self.backend = backend
        service = self.service
        self.touched_s = service.loop.now_s
        if backend.requests > 1:
            service.carried.counts[service.carried.first_cell + REUSED] += 1
        backend.send_request(self, self._kept or b"")
        if self.holds_request and not self.is_over and not backend.is_full:
            self.holds_request = False
            self.client.request_wanted()

    def backend_drained(self) -> None:
        """Have the client go on, since the backend takes more."""
        if self.holds_request and not self.is_over:
            self.holds_request = False
            self.client.request_wanted()

    def backend_lacking(self, reason: DropReason, error: str) -> None:
        """Take note that there is no connection to be had, and that another backend would be no better."""
        self._note_attempt(error)
        self._leave_pool()
        self.refuse(reason)

    def backend_failed(
        self, reason: DropReason, error: str, *, sent: bool, was_used: bool = False, answered: bool = False
    ) -> None:
        """Try again where that is safe, else tell the client.

        Args:
            reason: What went wrong.
            error: The same in words, for the log.
            sent: Whether the backend may have seen something of the request.
            was_used: Whether the connection had served before: it may just have been closed for its age.
            answered: Whether the backend said something that is no answer.
        """
        self.backend = None
        pool = self.pool
        assert pool is not None
        self._note_attempt(error)
        self._leave_pool()
        is_stale = was_used and reason is DropReason.BACKEND_RESET
        if not is_stale and reason not in (DropReason.NO_SOURCE_PORT, DropReason.FLUSHED):
            self.service.carried.failed(pool.endpoint, error)
        self.reason = reason
        if may_repeat(self, reason, sent=sent, is_stale=is_stale) and not answered:
            self._repeat(is_stale=is_stale)
        else:
            self.refuse(reason)

    def answer_whole(self, answer: PreparedAnswer, body: bytes) -> None:
        """Pass on an answer that came in one piece."""
        if not self._begin_answer(answer):
            return
        self.backend = None
        if self.caching is not None:
            self.caching.body(body)
            self.caching.whole()
        answer, body = self.coded_whole(answer, body)
        self.bytes_out += len(body)
        self.client.answer(self, answer, self._more_lines(), body, is_over=True)
        self._finish(None)

    def coded_whole(self, answer: PreparedAnswer, body: bytes) -> tuple[PreparedAnswer, bytes]:
        """Return head and body as this client gets them."""
        offered = self.service.http.compression
        coding = coding_of(self.prepared, answer, offered) if offered else None
        return (answer, body) if coding is None else (coding.answer, coding.last(body))

    def answer_from_cache(self, answer: PreparedAnswer, body: bytes) -> None:
        """Answer without a backend, or in its place."""
        self._leave_backend()
        self.status = answer.head.status
        self.origin = "cache"
        self.answer_begun = True
        self.bytes_out += len(body)
        self.client.answer(self, answer, self._more_lines(), body, is_over=True)
        self._finish(None)

    def answer_head(self, answer: PreparedAnswer, body: bytes = b"") -> None:
        """Pass on the head of an answer, and the first of its body."""
        if not self._begin_answer(answer):
            return
        if self.caching is not None:
            self.caching.body(body)
        if self.service.http.compression:
            self.coding = coding_of(self.prepared, answer, self.service.http.compression)
            if self.coding is not None:
                answer, body = self.coding.answer, self.coding.piece(body)
        self.bytes_out += len(body)
        self.client.answer(self, answer, self._more_lines(), body, is_over=False)
        self._hold()

    def answer_interim(self, answer: PreparedAnswer) -> None:
        """Pass on a head that another one follows."""
        self.touched_s = self.service.loop.now_s
        self.client.answer_interim(answer)

    def answer_upgrade(self, answer: PreparedAnswer, backend: BackendConnection) -> None:
        """Change the protocol, if that was asked for."""
        if not self.prepared.upgrade or answer.head.upgrade != self.prepared.upgrade:
            backend.abandon(self)
            self.backend_failed(DropReason.BAD_ANSWER, "101 that nobody asked for", sent=True, answered=True)
            return
        if not self._begin_answer(answer):
            return
        self.tunnel = Tunnel()
        self._kept = None
        self._count_websocket(1)
        self.client.answer_upgrade(self, answer, self._more_lines(), backend)

    def answer_body(self, data: bytes) -> None:
        """Pass on more of the answer's body."""
        self.touched_s = self.service.loop.now_s
        if self.caching is not None:
            self.caching.body(data)
        if self.coding is not None:
            data = self.coding.piece(data)
        if self.tunnel is not None:
            data = self.tunnel.to_client(data)
        if not data:
            return
        self.bytes_out += len(data)
        self.service.count_bytes(self)
        self.client.answer_body(data)
        self._hold()

    def answer_spliced(self, count: int) -> None:
        """Take note of a part of the answer's body that was moved already."""
        self.touched_s = self.service.loop.now_s
        self.bytes_out += count
        self.service.count_bytes(self)
        self._hold()

    @property
    def answer_sink(self) -> Stream | None:
        """Where the answer's body may be spliced to; None if it has to be seen on its way, or waits."""
        client = self.client
        if self.caching is not None or not isinstance(client, Stream):
            return None
        if self.coding is not None and not self.coding.is_plain:
            return None
        return client if not client.is_secure and not client.unsent else None

    def answer_end(self, data: bytes, trailers: list[Field] | None = None) -> None:
        """Pass on the last of the answer."""
        self.backend = None
        if self.caching is not None:
            self.caching.body(data)
            self.caching.whole()
        if self.coding is not None:
            data = self.coding.last(data)
        self.bytes_out += len(data)
        self.client.answer_end(data, trailers or [])
        self._finish(None)

    def answer_cut(self, error: str) -> None:
        """Cut the client off, since the rest of the answer will not come."""
        self.backend = None
        assert self.pool is not None
        self._note_attempt(error)
        self.service.carried.failed(self.pool.endpoint, error)
        self._cut(DropReason.ANSWER_CUT)

    # Ours.

    def refuse(self, reason: DropReason, *, more: bytes = b"", status: int = 0) -> None:
        """Answer in the backend's place; or cut the answer off, where it has begun.

        Args:
            reason: Why; counted, and told to the log.
            more: Field lines that go with it.
            status: None of its own where it is 0: the reason's.
        """
        if self.is_over:
            return
        if self.answer_begun:
            self._cut(reason)
            return
        hit = self.caching.failed() if self.caching is not None else None
        if hit is not None and self.caching is not None:
            self.caching.answer(hit)
            return
        self.status = status or STATUS_OF.get(reason, 503)
        self.origin = "proxy"
        self.answer_begun = True
        answer, body = own_answer(self.status, self.request_id, is_head=self.method == b"HEAD")
        self.bytes_out += len(body)
        self._leave_backend()
        self.client.answer(self, answer, more + self._more_lines(), body, is_over=True)
        self._finish(reason)

    def _pass_on(self, data: bytes) -> None:
        backend = self.backend
        if self._kept is not None:
            self._keep(self._kept, data)
        if backend is None:
            self.holds_request = self._kept is None or len(self._kept) >= MOST_KEPT_BYTES
            return
        backend.send_body(data)
        if self.backend is backend and backend.is_full:
            self.holds_request = True

    def _keep(self, kept: bytearray, data: bytes) -> None:
        """Keep the body's beginning for another try; what grows too long is sent once."""
        if self.backend is not None and len(kept) + len(data) > MOST_KEPT_BYTES:
            self._kept = None
        else:
            kept += data

    @property
    def is_all_kept(self) -> bool:
        """Whether the request can be sent from its beginning."""
        return self._kept is not None or (self.request_over and not self.prepared.head.has_body)

    def _begin_answer(self, answer: PreparedAnswer) -> bool:
        """Take note of an answer's head; false when it is not passed on, since another backend is asked."""
        status = answer.head.status
        retry_on = RETRY_STATUS.get(status)
        if retry_on is not None and retry_on in self.service.http.retry.on and may_ask_another(self):
            self._note_attempt(f"answered {status}")
            self._leave_backend()
            self._repeat(is_stale=False)
            return False
        self.touched_s = self.service.loop.now_s
        if self.caching is not None:
            hit = self.caching.heard(answer)
            if hit is not None:
                self.caching.answer(hit)
                return False
        self.status = status
        self.answer_begun = True
        self.service.carried.worked(self.pool.endpoint)  # type: ignore[union-attr]
        return True

    def _more_lines(self) -> bytes:
        return b"X-Request-Id: %b\r\n%b" % (self.request_id, self.cache_status)

    def _hold(self) -> None:
        if self.client.is_full and not self.is_over:
            self.is_held = True

    def _repeat(self, *, is_stale: bool) -> None:
        if is_stale:
            self.stale += 1
            self.tried = self.tried[:-1]  # the backend itself may be well
        else:
            self.retries += 1
            self.service.carried.counts[self.service.carried.first_cell + RETRIES] += 1
            if len(self.tried) >= len(self.service.pools):
                self.tried = ()
        self.find_backend()

    def _too_late(self, now_s: float) -> None:
        if self.answer_begun:
            self._cut(DropReason.REQUEST_TIMEOUT if now_s >= self.due_s else DropReason.READ_TIMEOUT)
            return
        limit_s = now_s - self._try_began_s
        is_out_of_time = now_s >= self.due_s
        pool = self.pool
        self._note_attempt(f"no answer within {limit_s:.3g} s")
        self._leave_backend()
        if pool is not None:
            self.service.carried.failed(pool.endpoint, f"no answer within {limit_s:.3g} s")
        retry = self.service.http.retry
        if not is_out_of_time and RetryOn.TIMEOUT in retry.on and may_ask_another(self):
            self._repeat(is_stale=False)
        else:
            self.refuse(DropReason.REQUEST_TIMEOUT if is_out_of_time else DropReason.READ_TIMEOUT, status=504)

    def _note_attempt(self, error: str) -> None:
        if self.pool is not None:
            took_ms = round((time.monotonic() - self._try_began_s) * 1000, 3)
            self.attempts = (*self.attempts, (self.pool.name, took_ms, error))

    def _leave_pool(self) -> None:
        if self.pool is not None:
            self.service.carried.counts[self.pool.cell] -= 1
            self.pool = None

    def _leave_backend(self) -> None:
        """Let go of the backend; a connection with half a request or half an answer is of no more use."""
        backend, self.backend = self.backend, None
        if backend is not None:
            backend.abandon(self)
        elif self.pool is not None:
            self.pool.stop_waiting(self)
        self._leave_pool()

    def _count_websocket(self, more: int) -> None:
        carried = self.service.carried
        carried.counts[carried.first_cell + WEBSOCKETS] += more

    def _cut(self, reason: DropReason | None) -> None:
        if not self.is_over:
            self.client.answer_cut()
            self._finish(reason)

    def _finish(self, reason: DropReason | None) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.reason = reason
        if self.tunnel is not None:
            self._count_websocket(-1)
        if self.caching is not None:
            self.caching.over(failed=self.origin != "client")
        self.service.finished(self)
        self._leave_backend()
        self.client.over(self)
