"""One request and its answer: who may ask, which backend is asked, what is tried again, and how it ended.

A client's connection (or stream, in HTTP/2) calls ``request_…``, a backend's connection ``backend_…`` and
``answer_…``; what comes of it goes to the ``Client`` and to the ``Answerer``. Whoever is faster is held: bytes wait
only in the streams, within bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from marchproxy_application.serving.caching import Caching, answer_again
from marchproxy_application.serving.coding import coding_of
from marchproxy_application.serving.deadlines import look
from marchproxy_application.serving.own_answers import STATUS_OF, own_answer
from marchproxy_application.serving.record import Record
from marchproxy_application.serving.trying import RETRY_STATUS, after_failure, may_ask_another, repeat
from marchproxy_application.serving.tunnelling import count_tunnels, go_away, upgrade
from marchproxy_application.streams import Stream
from marchproxy_core.drops import DropReason
from marchproxy_core.workers.ledger import REUSED

if TYPE_CHECKING:
    from marchproxy_application.backends.answerer import Answerer
    from marchproxy_application.backends.connection import BackendConnection
    from marchproxy_application.cache.answers import Fetch
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.preparing import PreparedAnswer

_MOST_KEPT_BYTES: Final = 1 << 16
"""How much of a request's body is kept, until a backend takes it and for another try."""


@final
class Exchange(Record):
    """A request, from its head to the end of its answer."""

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
        self.kept = None

    def go_away(self) -> None:
        """End a WebSocket with status 1001 as soon as its frames allow it; all else ends by itself."""
        go_away(self)

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
        return look(self, now_s)

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
        self.try_began_s = service.loop.now_s
        pool.begin(self)

    def backend_ready(self, backend: Answerer) -> None:
        """Send the request, on a connection that has room for it."""
        self.backend = backend
        service = self.service
        self.touched_s = service.loop.now_s
        if backend.requests > 1:
            service.carried.counts[service.carried.first_cell + REUSED] += 1
        backend.send_request(self, self.kept or b"")
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
        self.note_attempt(error)
        self.leave_pool()
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
        after_failure(self, reason, error, sent=sent, was_used=was_used, answered=answered)

    def answer_whole(self, answer: PreparedAnswer, body: bytes) -> None:
        """Pass on an answer that came in one piece."""
        if not self.begin_answer(answer):
            return
        self.backend = None
        if self.caching is not None:
            self.caching.body(body)
            self.caching.whole()
        answer, body = self.coded_whole(answer, body)
        self.bytes_out += len(body)
        self.client.answer(self, answer, self.more_lines(), body, is_over=True)
        self._finish(None)

    def coded_whole(self, answer: PreparedAnswer, body: bytes) -> tuple[PreparedAnswer, bytes]:
        """Return head and body as this client gets them."""
        offered = self.service.http.compression
        coding = coding_of(self.prepared, answer, offered) if offered else None
        return (answer, body) if coding is None else (coding.answer, coding.last(body))

    def answer_from_cache(self, answer: PreparedAnswer, body: bytes) -> None:
        """Answer without a backend, or in its place."""
        self.leave_backend()
        self.status = answer.head.status
        self.origin = "cache"
        self.answer_begun = True
        self.bytes_out += len(body)
        self.client.answer(self, answer, self.more_lines(), body, is_over=True)
        self._finish(None)

    def answer_head(self, answer: PreparedAnswer, body: bytes = b"") -> None:
        """Pass on the head of an answer, and the first of its body."""
        if not self.begin_answer(answer):
            return
        if self.caching is not None:
            self.caching.body(body)
        if self.service.http.compression:
            self.coding = coding_of(self.prepared, answer, self.service.http.compression)
            if self.coding is not None:
                answer, body = self.coding.answer, self.coding.piece(body)
        self.bytes_out += len(body)
        self.client.answer(self, answer, self.more_lines(), body, is_over=False)
        self._hold()

    def answer_interim(self, answer: PreparedAnswer) -> None:
        """Pass on a head that another one follows."""
        self.touched_s = self.service.loop.now_s
        self.client.answer_interim(answer)

    def answer_upgrade(self, answer: PreparedAnswer, backend: BackendConnection) -> None:
        """Change the protocol, if that was asked for."""
        upgrade(self, answer, backend)

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
        self.note_attempt(error)
        self.service.carried.failed(self.pool.endpoint, error)
        self.cut(DropReason.ANSWER_CUT)

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
            self.cut(reason)
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
        self.leave_backend()
        self.client.answer(self, answer, more + self.more_lines(), body, is_over=True)
        self._finish(reason)

    def _pass_on(self, data: bytes) -> None:
        backend = self.backend
        if self.kept is not None:
            self._keep(self.kept, data)
        if backend is None:
            self.holds_request = self.kept is None or len(self.kept) >= _MOST_KEPT_BYTES
            return
        backend.send_body(data)
        if self.backend is backend and backend.is_full:
            self.holds_request = True

    def _keep(self, kept: bytearray, data: bytes) -> None:
        """Keep the body's beginning for another try; what grows too long is sent once."""
        if self.backend is not None and len(kept) + len(data) > _MOST_KEPT_BYTES:
            self.kept = None
        else:
            kept += data

    def begin_answer(self, answer: PreparedAnswer) -> bool:
        """Take note of an answer's head; false when it is not passed on, since another backend is asked."""
        status = answer.head.status
        retry_on = RETRY_STATUS.get(status)
        if retry_on is not None and retry_on in self.service.http.retry.on and may_ask_another(self):
            self.note_attempt(f"answered {status}")
            self.leave_backend()
            repeat(self, is_stale=False)
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

    def more_lines(self) -> bytes:
        """Return the field lines that only this answer brings."""
        return b"X-Request-Id: %b\r\n%b" % (self.request_id, self.cache_status)

    def _hold(self) -> None:
        if self.client.is_full and not self.is_over:
            self.is_held = True

    def leave_pool(self) -> None:
        """Count the request out of its backend's."""
        if self.pool is not None:
            self.service.carried.counts[self.pool.cell] -= 1
            self.pool = None

    def leave_backend(self) -> None:
        """Let go of the backend; a connection with half a request or half an answer is of no more use."""
        backend, self.backend = self.backend, None
        if backend is not None:
            backend.abandon(self)
        elif self.pool is not None:
            self.pool.stop_waiting(self)
        self.leave_pool()

    def cut(self, reason: DropReason | None) -> None:
        """End within the answer, so that the client does not take it for whole; the reason is counted."""
        if not self.is_over:
            self.client.answer_cut()
            self._finish(reason)

    def _finish(self, reason: DropReason | None) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.reason = reason
        if self.tunnel is not None:
            count_tunnels(self, -1)
        if self.caching is not None:
            self.caching.over(failed=self.origin != "client")
        self.service.finished(self)
        self.leave_backend()
        self.client.over(self)
