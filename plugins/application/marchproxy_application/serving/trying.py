"""Whether a request may be tried again: only where that is safe, and within the service's budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from marchproxy_core.drops import DropReason
from marchproxy_core.services import RetryOn

if TYPE_CHECKING:
    from marchproxy_application.serving.exchange import Exchange

REPEATABLE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Idempotent ones (RFC 9110, section 9.2.2): asked twice is as good as asked once."""
RETRY_STATUS: Final = {502: RetryOn.STATUS_502, 503: RetryOn.STATUS_503, 504: RetryOn.STATUS_504}
_RETRY_ON: Final = {
    DropReason.BACKEND_REFUSED: RetryOn.CONNECT,
    DropReason.BACKEND_TIMEOUT: RetryOn.CONNECT,
    DropReason.BACKEND_TLS_FAILED: RetryOn.CONNECT,
    DropReason.NO_SOURCE_PORT: RetryOn.CONNECT,
    DropReason.FLUSHED: RetryOn.CONNECT,
    DropReason.BACKEND_RESET: RetryOn.RESET,
}
_MOST_STALE: Final = 3
"""How often a request may find that a connection that waited for it is dead."""


def may_repeat(exchange: Exchange, reason: DropReason, *, sent: bool, is_stale: bool) -> bool:
    """Whether a request that failed may be sent again.

    Args:
        exchange: It.
        reason: Why it failed.
        sent: Whether a backend may have seen something of it.
        is_stale: Whether all that is wrong is that a connection had been closed for its age.
    """
    if not exchange.is_all_kept or exchange.answer_begun or exchange.is_over:
        return False  # the body is gone, or the client has heard something already
    if sent and exchange.method not in REPEATABLE_METHODS:
        return False
    if is_stale:
        return exchange.stale < _MOST_STALE
    service = exchange.service
    retry = service.http.retry
    return _RETRY_ON.get(reason) in retry.on and exchange.retries < retry.most and service.budget.take()


def may_ask_another(exchange: Exchange) -> bool:
    """Whether a request that a backend has answered badly, or not in time, may be sent to another one."""
    service = exchange.service
    retry = service.http.retry
    return (
        exchange.method in REPEATABLE_METHODS
        and exchange.is_all_kept
        and exchange.retries < retry.most
        and len(exchange.tried) < len(service.pools)
        and service.budget.take()
    )
