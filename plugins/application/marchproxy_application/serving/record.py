"""What is known of one request: who asks what, who was asked, how far it has come. :class:`Exchange` acts on it."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from marchproxy_application.serving.trying import REPEATABLE_METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from marchproxy_application.backends.answerer import Answerer
    from marchproxy_application.backends.http2_pool import Http2Pool
    from marchproxy_application.backends.pool import Pool
    from marchproxy_application.http1.fields import Field
    from marchproxy_application.serving.caching import Caching
    from marchproxy_application.serving.client import Client
    from marchproxy_application.serving.coding import Coding
    from marchproxy_application.serving.preparing import PreparedRequest
    from marchproxy_application.serving.service import HttpService
    from marchproxy_application.websocket.tunnel import Tunnel
    from marchproxy_core.drops import DropReason


class Record:
    """Base of an exchange: its state."""

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
    kept: bytearray | None = None
    """The body as far as it has come; None once it is too long to be sent twice."""
    trailers: tuple[Field, ...] | list[Field] = ()
    """Behind the request's body, once it is over."""
    retries = 0
    stale = 0
    """How often a connection was found to be dead, which is no fault of its backend."""

    def __init__(self, client: Client, service: HttpService, prepared: PreparedRequest) -> None:
        """Begin with a request's head."""
        self.client = client
        self.service = service
        self.prepared = prepared
        head = prepared.head
        self.method = head.method
        self.request_id = service.next_id()
        self.began_s = self.touched_s = self.try_began_s = now_s = time.monotonic()
        self.due_s = now_s + service.request_timeout_s
        has_body = head.is_chunked or head.length > 0
        self.request_over = not has_body
        self.is_repeatable = not has_body and head.method in REPEATABLE_METHODS
        """Whether it can be sent again without asking anybody."""
        if has_body:
            self.kept = bytearray()

    @property
    def is_upgraded(self) -> bool:
        """Whether bytes go through as they are."""
        return self.tunnel is not None

    @property
    def is_all_kept(self) -> bool:
        """Whether the request can be sent from its beginning."""
        return self.kept is not None or (self.request_over and not self.prepared.head.has_body)

    def note_attempt(self, error: str) -> None:
        """Take note of a try that came to nothing."""
        if self.pool is not None:
            took_ms = round((time.monotonic() - self.try_began_s) * 1000, 3)
            self.attempts = (*self.attempts, (self.pool.name, took_ms, error))
