"""What requests of a service are counted under, and that each one is logged once."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

import structlog

from marchproxy_core.services import Http
from marchproxy_core.workers.ledger import (
    ANSWERS,
    BYTES_IN,
    BYTES_OUT,
    DURATION_BOUNDS_S,
    DURATION_SUM_US,
    DURATIONS,
    REQUESTS_ACTIVE,
)

if TYPE_CHECKING:
    from marchproxy_application.serving.client import Client
    from marchproxy_application.serving.exchange import Exchange
    from marchproxy_application.worker import Application
    from marchproxy_core.drops import DropReason
    from marchproxy_core.relay.carried import Carried

log = structlog.get_logger()

_CLASSES: Final = tuple(ANSWERS[f"{digit}xx"] for digit in range(1, 6))


class Tally:
    """Base of a service: counts its requests, in the cells that it has in the ledger."""

    def __init__(self, application: Application, carried: Carried) -> None:
        """Count from what the cells have already."""
        self.application = application
        self.carried = carried
        self.name = carried.work.service.name
        self.http = Http()
        self.requests = 0
        """Number of requests that are being served."""
        self._sampled = 0.0

    def began(self, exchange: Exchange) -> None:
        """Count a request as one that is being served."""
        del exchange
        self.requests += 1
        self.carried.counts[self.carried.first_cell + REQUESTS_ACTIVE] += 1

    def finished(self, exchange: Exchange) -> None:
        """Count a request that is over, and log it."""
        self.requests -= 1
        took_s = time.monotonic() - exchange.began_s
        carried = self.carried
        counts, first = carried.counts, carried.first_cell
        counts[first + REQUESTS_ACTIVE] -= 1
        status = exchange.status
        if status:
            # A backend may say 999, which counts as 5xx (RFC 9110, section 15).
            counts[first + _CLASSES[min(status // 100, 5) - 1]] += 1
        if exchange.tunnel is None:  # how long a WebSocket is open says nothing about how fast answers are
            counts[first + DURATIONS + bisect_left(DURATION_BOUNDS_S, took_s)] += 1
            counts[first + DURATION_SUM_US] += int(took_s * 1e6)
        self.count_bytes(exchange)
        if exchange.reason is not None:
            carried.drop(exchange.reason)
        self._sampled += self.http.access_log
        is_logged = self._sampled >= 1.0
        if is_logged:
            self._sampled -= 1.0
        self.application.access_log.tell(exchange, took_s, is_logged=is_logged)

    def count_bytes(self, exchange: Exchange) -> None:
        """Count what has come and gone since the last time."""
        counts, first = self.carried.counts, self.carried.first_cell
        if exchange.bytes_in != exchange.counted_in:
            counts[first + BYTES_IN] += exchange.bytes_in - exchange.counted_in
            exchange.counted_in = exchange.bytes_in
        if exchange.bytes_out != exchange.counted_out:
            counts[first + BYTES_OUT] += exchange.bytes_out - exchange.counted_out
            exchange.counted_out = exchange.bytes_out

    def refused(self, client: Client, request_id: bytes, status: int, reason: DropReason) -> None:
        """Count and log what was answered without being a request of any service."""
        counts, first = self.carried.counts, self.carried.first_cell
        counts[first + _CLASSES[status // 100 - 1]] += 1
        log.info(
            "request.refused",
            id=request_id.decode(),
            service=self.name,
            client=client.address.decode(),
            status=status,
            origin="proxy",
            reason=reason.value,
        )
        self.application.access_log.remember_refused(self.name, client, request_id, status, reason)
