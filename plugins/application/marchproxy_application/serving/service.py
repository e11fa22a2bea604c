"""One HTTP service in this worker: its pools, its limits, what it counts, what it knows of its backends' answers."""

from __future__ import annotations

import itertools
import os
import socket
import time
from typing import TYPE_CHECKING, Final, final

from marchproxy_application.auth.gate import Gate
from marchproxy_application.backends.pools import Pools
from marchproxy_application.cache.http_cache import HttpCache
from marchproxy_application.http1.response import read_response
from marchproxy_application.http1.trailers import Trailers, passed_on_behind
from marchproxy_application.serving.exchange import Exchange
from marchproxy_application.serving.limits import Budget, ClientRates
from marchproxy_application.serving.nobody import Nobody
from marchproxy_application.serving.preparing import Memory, PreparedAnswer, prepare_answer
from marchproxy_application.serving.tally import Tally
from marchproxy_core.backends.limits import LeakyBucket
from marchproxy_core.drops import DropReason
from marchproxy_core.services import Auth, AuthType, Cache, Http
from marchproxy_core.workers.ledger import REQUESTS, REQUESTS_ACTIVE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from marchproxy_application.backends.http2_pool import Http2Pool
    from marchproxy_application.backends.pool import Pool
    from marchproxy_application.cache.answers import Fetch
    from marchproxy_application.http1.fields import Field, HasFields
    from marchproxy_application.http1.response import ResponseHead
    from marchproxy_application.serving.client import Client
    from marchproxy_application.serving.front import Fronts
    from marchproxy_application.tls.files import Unusable
    from marchproxy_application.worker import Application
    from marchproxy_core.questions import Purge
    from marchproxy_core.relay.carried import Carried
    from marchproxy_core.services import Endpoint

LEAST_LOOK_S: Final = 0.25
"""How often the times of one connection are looked at, at most."""
_NONE_FORGED: Final[frozenset[bytes]] = frozenset()


@final
class HttpService(Tally):
    """What all requests for a service share; its clients' connections belong to fronts."""

    def __init__(self, application: Application, carried: Carried) -> None:
        """Have no connection yet."""
        super().__init__(application, carried)
        self.loop = application.loop
        self.fronts: Fronts = application.fronts
        self._refreshes: set[Exchange] = set()
        self.pools: tuple[Pool | Http2Pool, ...] = ()
        self._all_pools = Pools(self)
        self._known: dict[bool, Memory[PreparedAnswer]] = {False: Memory(), True: Memory()}
        self._id_start = os.urandom(6).hex().encode()
        self._ids = itertools.count(1)
        self.cache: HttpCache | None = None
        self._cache_wishes: Cache | None = None
        self._auth = Auth()
        self._gate: Gate | None = None
        self.backend_context: ssl.SSLContext | Unusable | None = None
        """For TLS to backends, or what is wrong with its files; None: they are spoken to in plain text."""
        self.update()

    @property
    def active(self) -> int:
        """Number of requests that are being served, and of clients' connections."""
        return self.requests + self.fronts.connections_of(self)

    def update(self) -> None:
        """Follow what changed in :attr:`carried`."""
        carried, service = self.carried, self.carried.work.service
        http = service.http
        assert http is not None
        settings = carried.settings
        self.request_timeout_s = http.request_timeout_s or settings.request_timeout
        self.look_after_s = min(
            self.request_timeout_s,
            settings.read_timeout,
            settings.write_timeout,
            max(settings.keep_alive_timeout, LEAST_LOOK_S),  # what begins once the request is over
            http.retry.try_timeout_s or settings.read_timeout,
            1.0 if http.min_client_rate else settings.read_timeout,
        )
        """How long a request may go on before its times are looked at, in seconds."""
        if http != self.http or not hasattr(self, "budget"):
            self._adopt(http)
        if service.cache != self._cache_wishes:
            self._adopt_cache(service.cache)
        if service.auth != self._auth:
            self._adopt_auth(service.auth)
        self.pools = self._all_pools.follow()
        self.fronts.routes_changed(self)

    def forged(self, head: HasFields) -> frozenset[bytes]:
        """Return the names of a request's fields that only we may set."""
        return self._gate.forged(head) if self._gate is not None else _NONE_FORGED

    def passed_on_behind(self, trailers: list[Field]) -> list[Field]:
        """Return those of a request's trailers that its backend gets."""
        behind = Trailers(trailers)
        return passed_on_behind(behind, self.forged(behind), self.http.request_headers)

    def next_id(self) -> bytes:
        """Return the id of one more request; no other has it, in this worker or another."""
        return b"%b%08x" % (self._id_start, next(self._ids))

    def admits(self, exchange: Exchange) -> bool:
        """Take a request in, or answer it with why not."""
        self.began(exchange)
        self.budget.earn()
        counts, first = self.carried.counts, self.carried.first_cell
        reason = self._refusal() if self._has_limits else None
        if reason is not None:
            exchange.refuse(reason)
            return False
        counts[first + REQUESTS] += 1
        return self._gate is None or self._gate.lets_in(exchange)

    def refresh(self, exchange: Exchange, fetch: Fetch) -> None:
        """Ask for what a client was answered from the cache with, so that the next one gets it anew."""
        refresh = Exchange(Nobody(exchange.client), self, exchange.prepared)
        self._refreshes.add(refresh)
        refresh.start_refresh(fetch)

    def admits_client(self, exchange: Exchange) -> bool:
        """Take a request in whose client is known, or answer it with why not."""
        rates = self._rates
        if rates is None or rates.admits(self._client_key(exchange), self.loop.now_s):
            return True
        exchange.refuse(DropReason.CLIENT_REQUEST_RATE)
        return False

    def purge(self, purge: Purge) -> int:
        """Forget what is cached; returns how many responses."""
        if self.cache is None:
            return 0
        now_s = time.time()
        if purge.url is not None:
            return self.cache.purge_url(purge.url, now_s)
        return self.cache.purge_prefix(purge.host, purge.prefix, now_s)

    def woken(self) -> None:
        """Take what another thread has for us."""
        if self._gate is not None:
            self._gate.woken()

    def prepared_answer(
        self, block: bytes, method: bytes, read: Callable[[bytes, bytes], ResponseHead] = read_response
    ) -> PreparedAnswer:
        """Return what clients get for a backend's head.

        Args:
            block: The head, to its empty line.
            method: Of the request.
            read: Who reads it; blocks of which others make something else are to differ.

        Raises:
            Refused: It is malformed.
        """
        known = self._known[method == b"HEAD"]
        answer = known.get(block)
        if answer is None:
            answer = prepare_answer(read(block, method), self.http.response_headers)
            known.keep(block, answer)
        return answer

    def key_of(self, client: Client) -> bytes:
        """Return what keeps a client at its backend: its packed IP address."""
        host = client.address.decode("ascii")
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)

    def listen(self, sockets: Sequence[tuple[Endpoint, socket.socket]], *, serve_out: bool = False) -> None:
        """Take requests from these sockets, which other services may share."""
        self.fronts.listen(self, sockets, serve_out=serve_out)

    def drain(self) -> None:
        """Serve who is in the queues already, then take nobody any more."""
        self.fronts.listen(self, (), serve_out=True)

    def leave(self, taken: set[Endpoint]) -> None:
        """Do nothing: addresses are given up at once."""

    def look(self, now_s: float) -> None:
        """Close what was idle for too long."""
        self._all_pools.look(now_s)
        if self._gate is not None:
            self._gate.look()
        for refresh in tuple(self._refreshes):
            refresh.look(time.monotonic())
            if refresh.is_over:
                self._refreshes.discard(refresh)

    def close(self, reason: DropReason | None = None) -> None:
        """End everything at once; ``reason`` counts for each connection that is cut."""
        self.fronts.listen(self, ())
        self.fronts.cut(self, reason)
        self._all_pools.flush()
        if self._gate is not None:
            self._gate.close()

    def contexts_changed(self) -> None:
        """Take the context for TLS to backends anew."""
        tls = self.http.backend_tls
        contexts = self.application.backend_contexts
        self.backend_context = (
            contexts.get(tls, self.http.backend_protocol, time.time()) if tls is not None else None
        )

    # Following the configuration.

    def _adopt(self, http: Http) -> None:
        self.http = http
        self.contexts_changed()
        self.budget = Budget(http.retry.budget)
        for known in self._known.values():
            known.forget()
        self._bucket = LeakyBucket(http.request_rate) if http.request_rate else None
        self._rates = ClientRates(http.client_request_rate) if http.client_request_rate else None
        kind, _, name = http.client_key.partition(":")
        self._key_header = name.encode() if kind == "header" else b""
        self._key_claim = name if kind == "claim" else ""
        self._has_limits = bool(self._bucket or http.max_requests)

    def _adopt_cache(self, wishes: Cache | None) -> None:
        self._cache_wishes = wishes
        self.cache = (
            None
            if wishes is None
            else HttpCache(
                ttl_s=wishes.ttl_s,
                vary=[name.lower().encode() for name in wishes.vary],
                max_bytes=wishes.max_bytes,
                max_object_bytes=wishes.max_object_bytes,
            )
        )

    def _adopt_auth(self, auth: Auth) -> None:
        self._auth = auth
        if self._gate is not None:
            self._gate.close()
        is_asked = auth.type is AuthType.JWT
        self._gate = Gate(auth, self.name, self.application.waker.wake) if is_asked else None

    def _refusal(self) -> DropReason | None:
        total, first = self.carried.total, self.carried.first_cell
        most = self.http.max_requests
        if most is not None and total(first + REQUESTS_ACTIVE) > most:
            return DropReason.MAX_REQUESTS
        now_s = self.loop.now_s
        if self._bucket is not None and not self._bucket.admits(now_s, total(first + REQUESTS)):
            return DropReason.REQUEST_RATE
        return None

    def _client_key(self, exchange: Exchange) -> bytes:
        if self._key_header:
            return exchange.prepared.head.first(self._key_header) or b""
        if self._key_claim:
            return str(exchange.claims.get(self._key_claim, "")).encode()
        return exchange.client.address
